"""Run after run: what is finished is skipped, what failed is told, and a signal stops all of it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from s3prl_interfaces.runner.config import load_config
from s3prl_interfaces.runner.variants import variants
from s3prl_interfaces.sweep.child import Child, Outcome
from s3prl_interfaces.sweep.lock import locked
from s3prl_interfaces.sweep.plan import load_sweep
from s3prl_interfaces.sweep.show import duration
from s3prl_interfaces.sweep.state import differences, state_of
from tests.sweep.conftest import UPSTREAM

FAKE = Path(__file__).parent / "fake_run.py"
GROUP = Path("result/downstream/toys/tests.runner.toys_build/toytask")
FOLDERS = [f"{name}-seed={seed}" for name in ("weighted_sum", "last_layer") for seed in (1, 2)]
ONE_A_RUN = {"values": {"config.runner.log_step": [1, 2, 3]}, "interfaces": ["last_layer"], "seeds": [1]}


def fake_process(args):
    lanes = variants(args, load_config(args.config))
    return [sys.executable, str(FAKE), *(str(lane.args.folder) for lane in lanes)]


@pytest.fixture
def fake(place, monkeypatch):
    """A place whose runs are `fake_run.py`; `fake.faults(...)` says what goes wrong where."""
    monkeypatch.setenv("FAKE_LOG", str(place.folder / "log"))
    monkeypatch.setattr("s3prl_interfaces.sweep.execute.process_of", fake_process)
    monkeypatch.setattr("s3prl_interfaces.sweep.jobs.process_of", fake_process)
    place.config(runner={"total_steps": 4})
    place.faults = lambda **faults: monkeypatch.setenv("FAKE", json.dumps(faults))

    def log():
        path = place.folder / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    place.log = log
    return place


def kinds(place):
    return [cell.state.kind for cell in load_sweep(Path("sweep.yaml")).cells]


def later(seconds, function):
    timer = threading.Timer(seconds, function)
    timer.start()
    return timer


def signal_when_waiting(folder, signum, pid=None):
    """Send a signal as soon as a fake run waits for one."""

    def send():
        for _ in range(400):
            if [*folder.rglob("waiting")]:
                break
            time.sleep(0.05)
        time.sleep(0.1)
        os.kill(pid or os.getpid(), signum)

    return later(0, send)


def test_all_is_run_once_and_compared(fake):
    fake.write()
    code, out, err = fake.sweep()
    assert code == 0
    assert len(fake.log()) == 1
    assert f"run 1 of 1: {UPSTREAM}, toytask, weighted_sum last_layer (2 interfaces x 2 seeds)\n" in err
    assert "weighted_sum" in out
    assert "last_layer" in out
    again = fake.sweep()
    assert (again[0], again[1]) == (0, out)
    assert fake.log() == []
    assert "4 cells: 4 finished; 0 runs to do" in again[2]


def test_what_is_added_later_goes_alone(fake):
    fake.write(seeds=[1])
    fake.sweep()
    fake.write(seeds=[1, 2])
    assert kinds(fake) == ["finished", "new", "finished", "new"]
    fake.log()
    fake.sweep()
    (line,) = fake.log()
    assert [Path(folder).name for folder in line.split()[:-1]] == [FOLDERS[1], FOLDERS[3]]


def test_a_dry_run_tells_and_leaves_nothing(fake):
    fake.write(interfaces=["weighted_sum", "last_layer", "concat", "hconv"], seeds=[1])
    names = [Path(cell.folder).name for cell in load_sweep(Path("sweep.yaml")).cells]
    place = fake.folder / GROUP
    fake.faults(**{"last_layer": "nothing", "weighted_sum": None, "concat": "nothing", "hconv": "nothing"})
    fake.sweep()
    for name in names[2:]:
        (place / name / "failed.json").unlink()
    (place / names[3] / "states-3.ckpt").touch()
    (place / names[3] / "config.yaml").write_text(yaml.safe_dump(load_config(["toy.yaml"])))
    before = {path: path.read_bytes() for path in fake.folder.rglob("*") if path.is_file()}
    code, out, _ = fake.sweep("--dry-run")
    assert code == 0
    assert {path: path.read_bytes() for path in fake.folder.rglob("*") if path.is_file()} == before
    title = f"{UPSTREAM}, toytask, concat hconv (2 interfaces x 1 seed)"
    flags = "run -m train -d toytask -u tests.runner.toys:build --interface concat hconv --seeds 1 -c toy.yaml"
    assert out.splitlines() == [
        "# nothing to do:",
        f"#   {GROUP}/{names[0]}: finished",
        f"#   {GROUP}/{names[1]}: failed: the run ended, but left no results.json",
        "",
        f"# run 1 of 1: {title}",
        f"#   {GROUP}/{names[2]}: new",
        f"#   {GROUP}/{names[3]}: unfinished, step 3 of 4",
        f"s3prl-interfaces {flags} -n toys/tests.runner.toys_build/toytask -a --device cpu",
        "",
        "# 4 cells: 1 finished, 1 failed, 1 new, 1 unfinished",
    ]
    assert "--interface last_layer concat hconv" in fake.sweep("--dry-run", "--rerun-failed")[1]
    assert subprocess.run(["bash", "-n"], input=out, text=True, check=True).returncode == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bad", "The corpus is not here: unpack it."),
        ("crash", "RuntimeError: out of memory"),
        ("kill", "killed by SIGKILL, as systems do that run out of memory"),
        ("nothing", "the run ended, but left no results.json"),
        ("silent", "exit code 3"),
    ],
)
def test_a_failure_is_noted_and_the_others_go_on(fake, fault, reason):
    fake.faults(**{"log_step=2": fault})
    fake.write(**ONE_A_RUN)
    code, out, err = fake.sweep()
    folder = GROUP / "log_step=2" / "last_layer-seed=1"
    step = 3 if fault == "kill" else 0
    assert code == 2
    assert len(fake.log()) == 3
    assert kinds(fake) == ["finished", "failed", "finished"]
    assert json.loads((folder / "failed.json").read_text()) == {"step": step, "reason": reason}
    assert f"failed at step {step}: {folder}: {reason}\n" in err
    assert err.splitlines()[-1].startswith("error: 1 of 3 cells failed")
    assert out.count("last_layer") == 2  # two leaderboards
    # Not again by itself, but when asked for.
    fake.faults()
    code, _, err = fake.sweep()
    assert code == 2
    assert fake.log() == []
    assert reason in err
    code, _, err = fake.sweep("--rerun-failed")
    assert (code, len(fake.log())) == (0, 1)
    assert not (folder / "failed.json").exists()


def test_the_reason_of_a_new_attempt_replaces_the_old_one(fake):
    fake.faults(**{"log_step=2": "bad"})
    fake.write(**ONE_A_RUN)
    fake.sweep()
    fake.faults(**{"log_step=2": "crash"})
    fake.sweep("--rerun-failed")
    failed = load_sweep(Path("sweep.yaml")).failed()
    assert [state.reason for _, state in failed] == ["RuntimeError: out of memory"]


def test_a_lane_that_died_says_so_itself(fake):
    fake.faults(**{"last_layer-seed=2": "lane"})
    fake.write()
    code, _, err = fake.sweep()
    assert code == 2
    assert kinds(fake) == ["finished"] * 3 + ["failed"]
    assert f"failed at step 2: {GROUP / FOLDERS[3]}: loss is nan" in err


def test_a_run_that_dies_in_the_middle_spares_what_was_finished(fake):
    fake.faults(**{"last_layer-seed=1": "bad"})
    fake.write()
    fake.sweep()
    assert kinds(fake) == ["finished", "finished", "failed", "failed"]


@pytest.mark.parametrize(("signum", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138), ("SIGHUP", 143)])
def test_a_signal_stops_all_once_the_run_has_saved(fake, signum, code):
    fake.faults(**{"log_step=2": "slow"})
    fake.write(**ONE_A_RUN)
    handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    timer = signal_when_waiting(fake.folder, getattr(signal, signum))
    found, out, err = fake.sweep()
    timer.join()
    assert found == code
    assert [line for line in fake.log() if line.startswith("saved")] == [f"saved upon {code - 128}"]
    assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == handlers
    assert kinds(fake) == ["finished", "unfinished", "new"]
    assert err.splitlines()[-1].startswith(f"Stopped by {signal.Signals(code - 128).name}")
    assert "Go on with the same command" in err.splitlines()[-1]
    assert out == ""
    assert fake.sweep()[0] == 0
    assert kinds(fake) == ["finished"] * 3


def test_under_nohup_a_closed_terminal_stops_nothing(fake):
    fake.faults(**{"log_step=2": "slow"})
    fake.write(**ONE_A_RUN)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        timers = [signal_when_waiting(fake.folder, signal.SIGHUP)]
        timers[0].join(0.1)
        timers.append(later(1.5, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert fake.sweep()[0] == 143
    finally:
        for timer in timers:
            timer.join()
        signal.signal(signal.SIGHUP, before)
    assert [line for line in fake.log() if line.startswith("saved")] == ["saved upon 15"]


@pytest.mark.parametrize("code", [130, 143, 138])
def test_a_run_that_was_stopped_from_outside_is_not_failed(fake, code):
    fake.faults(**{"log_step=2": code})
    fake.write(**ONE_A_RUN)
    assert fake.sweep()[0] == code
    assert kinds(fake) == ["finished", "unfinished", "new"]


def test_outcomes():
    assert [Outcome(code).stopped_by for code in (-2, -15, -10, 130, 143, 138)] == [2, 15, 10] * 2
    assert [Outcome(code).stopped_by for code in (0, 1, 2, -9, 137, 129)] == [None] * 6


def test_a_run_gets_the_size_of_the_terminal_and_no_signal_that_it_must_not_hear(capfd):
    code = "import os, signal; print(os.environ['COLUMNS'], os.environ.get('GONE'), os.environ['NEW']); "
    code += "os.kill(os.getpid(), signal.SIGUSR2); print('é', os.getcwd(), os.getsid(0) == os.getpid())"
    os.environ["GONE"] = "x"
    child = Child([sys.executable, "-c", code], {"GONE": None, "NEW": "1"}, Path("/"), deaf_to=[signal.SIGUSR2])
    assert child.wait() == Outcome(0)
    del os.environ["GONE"]
    columns, gone, new, letter, cwd, alone = capfd.readouterr().err.split()
    assert columns.isdigit()
    assert (gone, new, letter, cwd) == ("None", "1", "é", "/")
    assert alone == "True"  # Ctrl-C in a terminal reaches it once


def test_the_time_left(fake, monkeypatch):
    clock = iter([0.0, 100.0, 1000.0, 1300.0, 2000.0, 2001.0])
    monkeypatch.setattr("s3prl_interfaces.sweep.execute.time.monotonic", lambda: next(clock))
    fake.write(**{**ONE_A_RUN, "values": {"config.runner.total_steps": [100, 200, 400]}})
    err = fake.sweep()[2]
    left = [line for line in err.splitlines() if "left" in line]
    # 100 updates took 100 s, 600 are left; 300 took 400 s, 400 are left.
    assert [line.split(" left")[0] for line in left] == ["about 10 min", "about 9 min"]
    assert [duration(seconds) for seconds in (0, 89, 90, 5400, 12000, 187200)] == [
        "0 s", "89 s", "2 min", "1 h 30 min", "3 h 20 min", "2 d 4 h",
    ]  # fmt: skip


def test_one_sweep_at_a_time(fake):
    fake.write()
    with locked(Path("result/downstream/toys")):
        code, _, err = fake.sweep()
    assert code == 2
    assert "error: Another sweep is at work in result/downstream/toys" in err
    assert fake.log() == []
    assert fake.sweep()[0] == 0


def test_states(fake):
    fake.write(**ONE_A_RUN)
    fake.sweep()
    folder = fake.folder / GROUP / "log_step=1" / "last_layer-seed=1"
    result = folder / "results.json"
    assert str(state_of(folder)) == "finished"
    for checkpoint in folder.glob("*.ckpt"):  # to save space
        checkpoint.unlink()
    assert state_of(folder).kind == "finished"
    (folder / "states-2.ckpt").touch()
    assert str(state_of(folder)) == "unfinished, step 2 of 4"  # it was begun again, with more steps
    (folder / "states-2.ckpt").rename(folder / "states-4.ckpt")
    text = result.read_text()
    result.write_text(text[:50])
    assert "is not valid JSON" in str(state_of(folder))
    assert state_of(folder).kind == "failed"
    result.write_text(text)
    os.utime(result, (1, 1))
    assert "was continued, and not evaluated again" in str(state_of(folder))
    result.unlink()
    assert state_of(folder).kind == "unfinished"
    (folder / "failed.json").write_text("{")
    assert str(state_of(folder)) == "failed: failed.json cannot be read"
    assert state_of(fake.folder / "nowhere").kind == "new"


def test_a_folder_of_another_run_is_refused(fake):
    fake.write(interfaces=["last_layer"], seeds=[1])
    fake.sweep()
    folder = GROUP / FOLDERS[2]
    (folder / "args.yaml").write_text(yaml.safe_dump({"upstream": "hubert", "seed": 1}))
    code, _, err = fake.sweep()
    assert code == 2
    assert f"error: {folder} holds a run with `upstream` 'hubert', but sweep.yaml asks for '{UPSTREAM}'" in err


def test_a_config_that_has_changed_is_told(fake):
    config = load_config(["toy.yaml"])
    assert differences({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 1, "c": 3}, "e": 4}) == ["a.c", "d", "e"]
    fake.write(interfaces=["last_layer"], seeds=[1, 2])
    fake.sweep()
    for name in FOLDERS[2:]:
        (GROUP / name / "config.yaml").write_text(yaml.safe_dump({**config, "interface": {"name": "last_layer"}}))
    assert "Begun with" not in fake.sweep()[2]
    fake.config(optimizer={"lr": 0.7})
    told = "Begun with another config than it is now, and going on with that: 2 of 2 cells (`optimizer.lr`)."
    assert told in fake.sweep()[2]
    fake.config(
        optimizer={"lr": 0.7}, runner={"log_step": 9, "eval_step": 9, "save_step": 9, "max_keep": 9}, specaug={}
    )
    assert fake.sweep("--dry-run")[2].count("`") == 10


def test_for_real_a_failure_then_a_sigterm_then_the_end(place):
    """The command itself, with runs that train."""
    command = [sys.executable, "-m", "s3prl_interfaces.cli", "sweep", "sweep.yaml"]
    place.config(downstream_expert={"fold": "fold1", "fail": True})
    place.write(interfaces=["weighted_sum", "last_layer"], seeds=[1])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "The toy corpus is not here: unpack it." in done.stderr.splitlines()[-2]
    assert kinds(place) == ["failed", "failed"]
    place.config(downstream_expert={"fold": "fold1", "sleep": 0.5}, runner={"total_steps": 30, "save_step": 1})
    with subprocess.Popen([*command, "--rerun-failed"], stderr=subprocess.PIPE, text=True) as process:
        for _ in range(600):
            if [*place.folder.rglob("states-2.ckpt")]:
                break
            time.sleep(0.05)
        process.terminate()
        err = process.communicate()[1]
    assert process.returncode == 143
    assert err.splitlines()[-1].startswith("Stopped by SIGTERM")
    assert "train:" in err  # the run's bars
    assert kinds(place) == ["unfinished", "unfinished"]
    out = place.sweep("--dry-run")[1]
    step = int(out.partition("unfinished, step ")[2].split()[0])
    assert 2 <= step < 30
    shorter = "config.runner.total_steps=6,,config.downstream_expert.sleep=0"
    place.write(interfaces=["weighted_sum", "last_layer"], seeds=[1], flags={"device": "cpu", "override": shorter})
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"(step {step})" in done.stderr
    assert "weighted_sum" in done.stdout
    assert kinds(place) == ["finished", "finished"]
