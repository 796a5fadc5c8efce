"""Runs that are killed or asked to stop, at any moment: continued, they end as if nothing had happened.

Every run that is stopped is a process of its own. It is forked: importing PyTorch anew takes longer than the run.
"""

import io
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from tqdm import tqdm

from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, checkpoint, run
from s3prl_interfaces.runner import outcome as results
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from s3prl_interfaces.runner.interruption import SIGNALS, Stopped, heeded, stop_if_requested
from s3prl_interfaces.runner.lane import Lane
from tests.runner import toys
from tests.runner.test_runs import flat
from tests.runner.toys import toy_run
from tests.test_bad_input import train_flags

LANES = ["weighted_sum", "hconv:normalize=true"]
FOLDERS = ["weighted_sum", "hconv-normalize=true"]
CHANGES = {"runner": {"total_steps": 24, "log_step": 3, "eval_step": 4, "save_step": 3, "max_keep": 1, "fp16": True}}
"""Steps at which something is logged, evaluated or saved fall together in all ways; fp16, for the scaler's state."""

STOPPED, FAILED = 3, 4


def in_a_process(work, until=None):
    """Run ``work`` in a process of its own; ``until(pid)`` may stop it. Returns what it ended with."""
    process = multiprocessing.get_context("fork").Process(target=_quietly, args=(work,))
    process.start()
    if until is not None:
        until(process.pid)
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


def _quietly(work):
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    # tqdm's own is shared with forked processes: one that is killed while it holds it would stop all others for good.
    tqdm.set_lock(threading.RLock())
    try:
        work()
    except Stopped:
        os._exit(STOPPED)
    except BaseException:
        os._exit(FAILED)
    os._exit(0)


def outcome(folder):
    """Everything that a run ends with and that a stop must not change."""
    found = {}
    for name in FOLDERS:
        place = folder / name
        for file in ("states-24.ckpt", "dev-best.ckpt"):
            states = load_checkpoint(place / file)
            kept = {key: value for key, value in states.items() if key not in ("Seconds", "Args")}
            found |= {f"{name} {file} {key}": value for key, value in entries(kept)}
        result = read_result(place / "results.json")
        found[f"{name} scores"] = (result.metrics, result.primary, result.selection)
        for split in ("dev", "test"):
            found[f"{name} {split}"] = (place / f"{split}_predict.txt").read_text()
    return found


def entries(tree, prefix=""):
    """All numbers of nested mappings, lists and tuples."""
    if isinstance(tree, dict):
        tree = list(tree.items())
    elif isinstance(tree, (list, tuple)):
        tree = list(enumerate(tree))
    else:
        yield prefix, tree
        return
    for key, value in tree:
        yield from entries(value, f"{prefix}.{key}")


def assert_same_outcome(one, other):
    assert one.keys() == other.keys()
    assert len(one) > 100
    for key, value in one.items():
        same = torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        assert same, key


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """How the run ends that nobody stops, and how long it takes."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        toys.put_in_place(patch)
        began = time.monotonic()
        assert in_a_process(lambda: train(folder)) == 0
        seconds = time.monotonic() - began
    return outcome(folder / "run"), seconds


def train(folder):
    """The run; what is there already goes on."""
    torch.set_num_threads(1)
    toy_run(folder, CHANGES, interface=LANES, auto_resume=True)


def kill_at(seconds):
    def kill(pid):
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    return kill


def killed_while_writing(folder, number, share):
    """A run whose process dies when part of its checkpoint number ``number`` is written."""

    def work():
        save = torch.save
        written = []

        def dies(states, file):
            written.append(None)
            if len(written) < number:
                return save(states, file)
            whole = io.BytesIO()
            save(states, whole)
            file.write(whole.getvalue()[: int(share * len(whole.getvalue()))])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        checkpoint.torch.save = dies
        train(folder)

    return work


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_ten_random_moments(tmp_path, whole, seed):
    """With both seeds twenty; four of each ten in the middle of writing a checkpoint."""
    expected, seconds = whole
    chance = random.Random(seed)
    place, survived = tmp_path / "0", 0
    for kill in range(10):
        while True:
            if kill % 5 in (1, 3):
                end = in_a_process(killed_while_writing(place, chance.randint(1, 6), chance.random()))
            else:
                end = in_a_process(partial(train, place), kill_at(chance.uniform(0.1, 0.9) * seconds))
            if end == -signal.SIGKILL:
                break
            assert end == 0  # faster than the kill: the next one is of a run that begins anew
            assert_same_outcome(outcome(place / "run"), expected)
            survived += 1
            seconds *= 0.7  # the first run took longer, on a machine that was busy then
            place = tmp_path / str(survived)
    assert in_a_process(partial(train, place)) == 0
    assert_same_outcome(outcome(place / "run"), expected)


def test_a_checkpoint_that_was_begun_is_removed(tmp_path):
    """One that nothing writes again: of a signal, and then killed."""
    partial_file = tmp_path / "run/.states-7.ckpt.partial"
    partial_file.parent.mkdir()
    partial_file.write_bytes(b"PK")
    toy_run(tmp_path, {"runner": {"total_steps": 2}})
    assert not partial_file.exists()


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_writes_a_checkpoint_and_stops(tmp_path, whole, signum):
    def signalled_in_update(at):
        update = Lane.update

        def work():
            def sends(self, step):
                if step == at and self.interface_name == "hconv":
                    os.kill(os.getpid(), signum)
                return update(self, step)

            Lane.update = sends
            train(tmp_path)

        return work

    for step in (1, 10, 17):
        assert in_a_process(signalled_in_update(step)) == STOPPED
        for name in FOLDERS:
            (kept,) = (tmp_path / "run" / name).glob("states-*.ckpt")
            assert kept.name == f"states-{step}.ckpt"
    assert in_a_process(lambda: train(tmp_path)) == 0
    assert_same_outcome(outcome(tmp_path / "run"), whole[0])


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("at", [4, 12, 24])  # evaluated only; and saved; and finished
def test_a_signal_in_an_evaluation(tmp_path, whole, split, at):
    """What was evaluated before counts, what was not is evaluated when the run is continued."""
    forward = toys.DownstreamExpert.forward

    def work():
        seen = []

        def sends(self, of, *others, **more):
            seen.append(of)
            if of == split and _step(seen) == at and "sent" not in seen:
                seen.append("sent")
                os.kill(os.getpid(), signal.SIGTERM)
            return forward(self, of, *others, **more)

        toys.DownstreamExpert.forward = sends
        train(tmp_path)

    assert in_a_process(work) == STOPPED
    for name in FOLDERS:
        (kept,) = (tmp_path / "run" / name).glob("states-*.ckpt")
        states = load_checkpoint(kept)
        assert states["Step"] == at
        assert states["Unevaluated"] == (["dev", "test"] if split == "dev" else ["test"])
    assert in_a_process(lambda: train(tmp_path)) == 0
    assert_same_outcome(outcome(tmp_path / "run"), whole[0])


def _step(seen):
    """Updates done: each is two micro-batches in two lanes."""
    return sum(split == "train" for split in seen) // 4


def test_a_stop_while_the_results_are_made(tmp_path, whole):
    """The last checkpoint is there; nothing needs to be saved."""

    def work():
        load = results._load_kept

        def sends(*arguments):
            if results._load_kept is sends:
                results._load_kept = load
                os.kill(os.getpid(), signal.SIGINT)
            return load(*arguments)

        results._load_kept = sends
        train(tmp_path)

    assert in_a_process(work) == STOPPED
    assert not list(tmp_path.rglob("results.json"))
    assert in_a_process(lambda: train(tmp_path)) == 0
    assert_same_outcome(outcome(tmp_path / "run"), whole[0])


def test_workers_outlive_a_signal_to_the_whole_group(tmp_path):
    """A terminal's Ctrl-C goes to the loader's workers, too, and they are needed to end the update."""
    changes = {"runner": CHANGES["runner"], "downstream_expert": {"num_workers": 2}}
    update = Lane.update

    def work():
        os.setpgid(0, 0)

        def sends(self, step):
            if step == 3:
                os.killpg(0, signal.SIGINT)
                time.sleep(0.2)
            return update(self, step)

        Lane.update = sends
        toy_run(tmp_path, changes)

    assert in_a_process(work) == STOPPED
    assert (tmp_path / "run/states-3.ckpt").exists()


def test_what_was_recorded_since_the_last_log_is_kept(tmp_path):
    """The toy task writes every loss that it is given: each once, in the same order."""
    changes = {"runner": {**CHANGES["runner"], "log_step": 5}}
    whole = toy_run(tmp_path / "whole", changes)
    update = Lane.update

    def work():
        def sends(self, step):
            if step == 8:
                os.kill(os.getpid(), signal.SIGTERM)
            return update(self, step)

        Lane.update = sends
        toy_run(tmp_path / "stopped", changes)

    assert in_a_process(work) == STOPPED
    stopped = toy_run(tmp_path / "stopped", changes, auto_resume=True)
    assert (stopped / "losses.txt").read_text() == (whole / "losses.txt").read_text()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_from_the_command_line(tmp_path, signum, code):
    """A task of ours with workers; the signal goes to all processes, as a terminal and SLURM send it."""
    (corpus,) = make_mini_superb(tmp_path / "mini", corpora=["fluent_speech_commands"], scale=0.03)
    long = "config.runner.total_steps=100000,,config.downstream_expert.datarc.num_workers=2"
    command = [sys.executable, "-m", "s3prl_interfaces.cli", "run", *train_flags(corpus, tmp_path / "run", long)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while "train:" not in process.stderr.readline():
        assert process.poll() is None
    while not list(tmp_path.glob("run/states-*.ckpt")):
        time.sleep(0.05)
    os.killpg(process.pid, signum)
    told = process.stderr.read()
    assert process.wait(60) == code
    assert told.splitlines()[-1] == f"Stopped by {signum.name}; what was done is saved. Continue with `-a`."
    assert "Traceback" not in told
    (kept,) = (tmp_path / "run").glob("states-*.ckpt")
    step = load_checkpoint(kept)["Step"]
    more = f"config.runner.total_steps={step + 1}"
    run(RunArguments(mode="train", past_exp=str(tmp_path / "run"), device="cpu", override=more))
    assert read_result(tmp_path / "run/results.json").metrics["dev"]["step"] > 0


def test_a_second_signal_does_what_it_does_elsewhere():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` has it ignored
    with heeded():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(Stopped) as stopped:
            stop_if_requested()
        assert stopped.value.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    stop_if_requested()  # forgotten


def test_outside_signals_are_nobodys_business():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with heeded():
        assert [signal.getsignal(signum) for signum in SIGNALS] != before
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_in_a_thread_signals_are_left_alone(tmp_path):
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(toy_run, tmp_path, {"downstream_expert": {"num_workers": 1}}).result()
    assert (tmp_path / "run/results.json").exists()
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


def test_every_entry_is_looked_at():
    """The helper above, which the rest stands on."""
    tree = {"a": [1, {"b": torch.ones(2)}], "c": ()}
    assert [key for key, _ in entries(tree)] == [".a.0", ".a.1.b"]
    assert dict(flat({"a": {"b": torch.ones(1)}})).keys() == {"a.b"}
