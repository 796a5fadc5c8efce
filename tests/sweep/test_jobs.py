"""Runs as jobs of submitit: its local executor for real; of SLURM what can be seen without one."""

import builtins
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from s3prl_interfaces.sweep import jobs
from s3prl_interfaces.sweep.child import Outcome
from s3prl_interfaces.sweep.plan import load_sweep
from tests.sweep.test_execute import GROUP, ONE_A_RUN, fake, kinds, signal_when_waiting  # noqa: F401 (a fixture)

FOLDER = Path("result/downstream/toys")
SLURM = {
    "sbatch": 'cp "$1" sbatch.txt; mkdir waiting; echo Submitted batch job 12',
    "srun": "",
    "scancel": "echo $1 > scancelled.txt",
    "sacct": "echo 'JobID|State|NodeList'; echo '12|RUNNING|x'",
}
"""Scripts in the place of SLURM's commands."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(jobs, "POLL_SECONDS", {"local": 0.05, "slurm": 0.05})


@pytest.fixture
def submitted(monkeypatch):
    """The jobs that are submitted."""
    found = []
    submit = jobs._submit
    monkeypatch.setattr(jobs, "_submit", lambda *args: found.append(submit(*args)) or found[-1])
    return found


def task_of(job):
    """The process in which submitit calls the job."""
    found = subprocess.run(["pgrep", "-P", job.job_id], capture_output=True, text=True, check=True)
    return int(found.stdout.split()[0])


def test_each_run_is_a_job(fake, monkeypatch, submitted):  # noqa: F811
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    fake.faults(**{"log_step=2": "bad"})
    fake.write(**ONE_A_RUN)
    code, out, err = fake.sweep("--submitit", "local", "--at-once", "3")
    assert code == 2
    assert kinds(fake) == ["finished", "failed", "finished"]
    assert out.count("last_layer") == 2
    folder = GROUP / "log_step=2" / "last_layer-seed=1"
    assert json.loads((folder / "failed.json").read_text())["reason"] == "The corpus is not here: unpack it."
    assert all(line.endswith(" 5") for line in fake.log())  # submitit alone would hide the GPUs
    assert len(submitted) == 3
    for number, job in enumerate(submitted, start=1):
        assert f"run {number} of 3 is job {job.job_id}: " in err
        assert job.paths.folder.parent.samefile(FOLDER) or job.paths.folder.samefile(FOLDER / "submitit")
        assert job.paths.stderr.is_file()
    assert "The corpus is not here" in submitted[1].stderr()
    assert "3 of 3 ended: run" in err


def test_jobs_take_turns(fake, monkeypatch):  # noqa: F811
    fake.write(**{**ONE_A_RUN, "values": {"config.runner.log_step": [1, 2]}})
    most = []
    submit = jobs._submit
    active = []

    def count(*args):
        active.append(submit(*args))
        most.append(sum(not job.done() for job in active))
        return active[-1]

    monkeypatch.setattr(jobs, "_submit", count)
    assert fake.sweep("--submitit", "local")[0] == 0
    assert most == [1, 1]


def test_gpus_that_are_asked_for_are_submitits_to_give(fake, monkeypatch):  # noqa: F811
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    fake.write(interfaces=["last_layer"], seeds=[1], submitit={"gpus_per_node": 1})
    assert fake.sweep("--submitit", "local")[0] == 0
    assert fake.log()[0].endswith(" 0")


def test_a_job_that_is_cut_short_saves_and_goes_on_as_a_new_one(fake, submitted):  # noqa: F811
    """What SLURM does before a time limit and upon pre-emption, through submitit's own signal handler."""
    fake.faults(**{"last_layer": "slow"})
    fake.write(interfaces=["last_layer"], seeds=[1])

    def interrupt():
        while not [*fake.folder.rglob("waiting")]:
            time.sleep(0.05)
        os.kill(task_of(submitted[0]), signal.SIGUSR2)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert fake.sweep("--submitit", "local")[0] == 0
    thread.join()
    assert kinds(fake) == ["finished"]
    log = fake.log()
    assert len(log) == 3
    assert log[1] == "saved upon 15"
    assert log[0] == log[2]
    assert "Requeued job" in submitted[0].stdout() + submitted[0].stderr()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_stops_its_jobs(fake, submitted, signum):  # noqa: F811
    fake.faults(**{"log_step=1": "slow"})
    fake.write(**ONE_A_RUN)

    def stop():
        while not [*fake.folder.rglob("waiting")]:
            time.sleep(0.05)
        time.sleep(0.1)
        if signum == signal.SIGINT:  # Ctrl-C in a terminal is for all processes that it shows
            os.kill(task_of(submitted[0]), signum)
            os.kill(int(submitted[0].job_id), signum)
        os.kill(os.getpid(), signum)

    thread = threading.Thread(target=stop)
    thread.start()
    code, out, _ = fake.sweep("--submitit", "local")
    thread.join()
    assert code == 128 + signum
    assert out == ""
    assert [line for line in fake.log() if line.startswith("saved")] == ["saved upon 15"]
    assert submitted[0].done()
    assert kinds(fake) == ["unfinished", "new", "new"]
    assert fake.sweep()[0] == 0


def test_a_run_that_was_stopped_from_outside_stops_the_sweep(fake):  # noqa: F811
    fake.faults(**{"log_step=1": 143})
    fake.write(**ONE_A_RUN)
    assert fake.sweep("--submitit", "local")[0] == 143
    assert kinds(fake) == ["unfinished", "new", "new"]


def test_on_slurm_a_run_that_got_the_signal_itself_gets_no_second_one(tmp_path, monkeypatch):
    """SLURM gives SIGTERM to every process of a job; a second one would kill a run while it saves."""
    code = (
        "import os, signal, sys, time\n"
        "signals = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: signals.append(1))\n"
        f"open({str(tmp_path / 'ready')!r}, 'w').close()\n"
        "while not signals: time.sleep(0.01)\n"
        "time.sleep(0.5)\n"
        "deaf = signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN\n"
        f"open({str(tmp_path / 'count')!r}, 'w').write(str([len(signals), deaf]))\n"
        "os._exit(143)\n"
    )
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setattr(jobs, "PATIENCE", 0)
    job = jobs.Job([sys.executable, "-c", code], {}, tmp_path)
    told = []

    def from_slurm():
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        os.kill(job._child._process.pid, signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGALRM)

    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, lambda *_: told.append((job.checkpoint(), (tmp_path / "count").exists())))
    thread = threading.Thread(target=from_slurm)
    thread.start()
    try:
        assert job().code == 143
    finally:
        thread.join()
        for one, handler in before.items():
            signal.signal(one, handler)
    assert (
        tmp_path / "count"
    ).read_text() == "[1, True]"  # and SLURM's warning, which every process gets, is not heard
    ((again, had_ended),) = told
    assert had_ended  # a new job must not begin while the old one saves
    assert isinstance(again.function, jobs.Job)
    assert (again.function.command, again.function._child) == (job.command, None)


def test_on_slurm_a_stopped_job_waits_to_be_queued_again(tmp_path, monkeypatch):
    slept = []
    monkeypatch.setattr(jobs.time, "sleep", slept.append)
    before = signal.getsignal(signal.SIGTERM)
    for executor, code, expected in [("slurm", 143, [jobs.PATIENCE]), ("slurm", 0, []), ("local", 143, [])]:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
        outcome = jobs.Job([sys.executable, "-c", f"raise SystemExit({code})"], {}, tmp_path)()
        assert outcome.code == code
        assert slept == expected
        slept.clear()
    signal.signal(signal.SIGTERM, before)


def test_slurm_gets_its_parameters(fake, monkeypatch):  # noqa: F811
    """The submission, with `sbatch` being a script that keeps what it is given."""
    tools = fake.folder / "tools"
    tools.mkdir()
    for name, text in SLURM.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    fake.write(submitit={"slurm_partition": "gpu", "gpus_per_node": 1, "timeout_min": 90})
    timer = signal_when_waiting(fake.folder, signal.SIGTERM)
    code, *_ = fake.sweep("--submitit", "slurm")
    timer.join()
    assert code == 143
    script = (fake.folder / "sbatch.txt").read_text()
    for line in ("--partition=gpu", "--time=90", "--gpus-per-node=1", "--job-name=toys"):
        assert f"#SBATCH {line}\n" in script
    assert (fake.folder / "scancelled.txt").read_text() == "12\n"
    executor = jobs.make_executor("slurm", FOLDER, {})
    assert executor.parameters["time"] == 60 * 24
    assert executor._executor.max_num_timeout == jobs.MOST_TIMEOUTS


def test_a_job_without_a_result_is_a_failure():
    from submitit.core.utils import UncompletedJobError

    class Job:
        job_id = "7"
        paths = type("Paths", (), {"stderr": "logs/7.err"})

        def result(self):
            raise UncompletedJobError("Job 7 has not produced any output\n---\nnode is gone\n")

    assert jobs._result(Job()) == Outcome(1, "job 7 ended without a result, see logs/7.err (node is gone)")


def test_what_can_be_wrong(fake, monkeypatch):  # noqa: F811
    def refused(*flags, **keys):
        fake.write(**keys)
        code, _, err = fake.sweep(*flags)
        assert code == 2
        assert fake.log() == []
        return err.splitlines()[-1]

    local = ("--submitit", "local")
    assert "error: `submitit`: Unknown argument 'partitoin'" in refused(*local, submitit={"slurm_partitoin": "x"})
    assert "error: `submitit`: " in refused(*local, submitit={"timeout_min": "long"})
    assert 'error: --submitit slurm: Could not detect "srun"' in refused("--submitit", "slurm")
    assert "`--at-once N` goes with `--submitit`" in refused("--at-once", "2")
    assert "N must be 1 or more" in refused(*local, "--at-once", "0")
    importing = builtins.__import__

    def without(name, *more):
        if name == "submitit":
            raise ImportError
        return importing(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    message = refused(*local)
    assert message == "error: submitit is not installed: pip install 's3prl-interfaces[sweep]'"
    assert len(load_sweep(Path("sweep.yaml")).runs()) == 1
