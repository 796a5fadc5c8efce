"""Two processes on the CPU: with batches of b they do what one does with batches of 2 b."""

import ctypes
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, distributed, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from s3prl_interfaces.runner.lane import Lane
from tests.runner.test_runs import assert_same, weights
from tests.runner.test_stopping import FAILED, STOPPED, in_a_process
from tests.runner.toys import DownstreamExpert, Upstream, toy_run
from tests.test_bad_input import train_flags

LANES = ["weighted_sum", "hconv:normalize=true"]
FOLDERS = ["weighted_sum", "hconv-normalize=true"]


def processes(work, count=2):
    """Run ``work`` in processes as torchrun starts them; what each ended with."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ends = []

    def start(rank):
        def one():
            told = {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": count,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            os.environ.update({key: str(value) for key, value in told.items()})
            torch.set_num_threads(1)
            work()

        if rank + 1 == count:
            ends.append(in_a_process(one))
        else:
            ends.append(in_a_process(one, until=lambda _: start(rank + 1)))

    start(0)
    return ends


@pytest.fixture
def dropout():
    """For tests with it."""


@pytest.fixture(autouse=True)
def no_dropout(monkeypatch, request):
    """What is dropped depends on the batch."""
    if "dropout" not in request.fixturenames:
        monkeypatch.setattr(nn.Dropout, "forward", lambda self, values: values)


def changes(batch_size, **downstream):
    return {"downstream_expert": {"batch_size": batch_size, "crop": False, **downstream}}


def assert_close(one, other):
    for key, value in weights(one).items():
        if "best_score" not in key:
            torch.testing.assert_close(weights(other)[key], value, atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("batch", [2, 4, 3])  # the last batch: of two in one process; of none in the other
def test_two_processes_are_one_with_twice_the_batch(tmp_path, caplog, batch, workers):
    settings = {"num_workers": workers}
    one = toy_run(tmp_path / "one", changes(2 * batch, **settings), interface=["hconv"])
    work = partial(toy_run, tmp_path / "two", changes(batch, **settings), interface=["hconv"])
    with caplog.at_level(logging.INFO):
        assert processes(work) == [0, 0]
    two = tmp_path / "two/run"
    assert_close(one, two)
    expected, found = (read_result(folder / "results.json") for folder in (one, two))
    assert found.counts == expected.counts == {"dev": 7, "test": 9}
    assert found.metrics["test"]["acc"] == expected.metrics["test"]["acc"]
    for split in ("dev", "test"):  # every utterance once, in the same order
        assert (two / f"{split}_predict.txt").read_text() == (one / f"{split}_predict.txt").read_text()
    assert sorted(path.name for path in two.iterdir() if not path.name.startswith("events")) == sorted(
        path.name for path in one.iterdir() if not path.name.startswith("events")
    )
    assert load_checkpoint(two / "states-12.ckpt")["WorldSize"] == 2
    # TensorBoard's events and log.txt are of one process.
    assert len(list(two.glob("events*"))) == 1
    assert (two / "log.txt").read_text().count("Step 12, hconv, dev") == 1


def test_three_processes_and_fine_tuning(tmp_path):
    one = toy_run(tmp_path / "one", changes(6), upstream_trainable=True)
    assert processes(partial(toy_run, tmp_path / "three", changes(2), upstream_trainable=True), 3) == [0, 0, 0]
    assert_close(one, tmp_path / "three/run")
    tuned = [load_checkpoint(place / "states-12.ckpt")["Upstream"]["weight"] for place in (one, tmp_path / "three/run")]
    torch.testing.assert_close(*tuned, atol=1e-5, rtol=1e-5)


def test_lanes(tmp_path):
    one = toy_run(tmp_path / "one", changes(4), interface=LANES)
    assert processes(partial(toy_run, tmp_path / "two", changes(2), interface=LANES)) == [0, 0]
    for name in FOLDERS:
        assert_close(one / name, tmp_path / "two/run" / name)
        assert (tmp_path / "two/run" / name / "results.json").exists()


def test_the_first_process_alone_writes(tmp_path):
    """Whatever the other opens for writing, makes, renames or removes is noted."""
    place, notes = tmp_path / "run", tmp_path / "notes"

    def work():
        rank = os.environ["RANK"]

        def note(event, arguments):
            changes = event in ("os.mkdir", "os.rename", "os.remove") or (
                event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            )
            if changes and str(place) in str(arguments[0]):
                with Path(f"{notes}-{rank}").open("a") as file:
                    file.write(f"{event} {arguments[0]}\n")

        sys.addaudithook(note)
        toy_run(tmp_path, changes(2), interface=LANES)

    assert processes(work) == [0, 0]
    assert "results.json" in Path(f"{notes}-0").read_text()
    assert not Path(f"{notes}-1").exists()


def test_a_lane_that_fails_ends_all_processes(tmp_path):
    """They could not agree on the lanes that go on otherwise."""
    loss = Lane.loss

    def work():
        def fails(self, split, *others, **more):
            if distributed.rank() == 1 and self.interface_name == "hconv" and split == "train":
                raise RuntimeError
            return loss(self, split, *others, **more)

        Lane.loss = fails
        toy_run(tmp_path, changes(2), interface=LANES)

    assert processes(work) == [FAILED, FAILED]
    assert not list(tmp_path.rglob("failed.json"))


def test_an_interface_that_is_fitted(tmp_path):
    one = toy_run(tmp_path / "one", changes(4), interface=["pca_concat"])
    assert processes(partial(toy_run, tmp_path / "two", changes(2), interface=["pca_concat"])) == [0, 0]
    first, second = (load_checkpoint(place / "states-3.ckpt")["Featurizer"] for place in (one, tmp_path / "two/run"))
    torch.testing.assert_close(second["interface.mean"], first["interface.mean"], atol=1e-5, rtol=1e-5)
    assert_close(one, tmp_path / "two/run")


def test_utterances_that_cannot_be_read(tmp_path, monkeypatch):
    """The gradient is of the mean over those that were: a plain mean of two processes would be another."""
    collate = DownstreamExpert._collate

    def spoilt(self, batch, split):
        read = [item for item in batch if item[2] not in ("u3", "u4", "u11", "u101", "u104", "u105")]
        return collate(self, read, split) if read else ((),)

    monkeypatch.setattr(DownstreamExpert, "_collate", spoilt)
    one = toy_run(tmp_path / "one", changes(4))
    assert processes(partial(toy_run, tmp_path / "two", changes(2))) == [0, 0]
    assert_close(one, tmp_path / "two/run")
    assert read_result(tmp_path / "two/run/results.json").counts["dev"] == 4


def stopped_at(step, work, times=1):
    """``work`` in which the last process is asked to stop, once or more, in the update after ``step``."""
    update = Lane.update

    def stops():
        def sends(self, at):
            if at == step and distributed.rank() == distributed.world_size() - 1:
                for _ in range(times):
                    os.kill(os.getpid(), signal.SIGTERM)
            return update(self, at)

        Lane.update = sends
        work()

    return stops


@pytest.mark.usefixtures("dropout")
@pytest.mark.parametrize("stop", [4, 5])  # when there are evaluations, and when there are none
def test_stopped_and_continued(tmp_path, stop):
    """As one that was not stopped, dropout and crops included."""
    settings = {"downstream_expert": {"batch_size": 2}}
    assert processes(partial(toy_run, tmp_path / "whole", settings, interface=["hconv"])) == [0, 0]
    work = partial(toy_run, tmp_path / "stopped", settings, interface=["hconv"], auto_resume=True)
    assert processes(stopped_at(stop, work)) == [STOPPED, STOPPED]
    assert load_checkpoint(tmp_path / f"stopped/run/states-{stop}.ckpt")["Step"] == stop
    assert processes(work) == [0, 0]
    assert_same(weights(tmp_path / "whole/run"), weights(tmp_path / "stopped/run"))


@pytest.mark.usefixtures("dropout")
def test_each_process_drops_other_units(tmp_path):
    """And crops: their random numbers go separate ways, while the weights are the same."""
    drawn = tmp_path / "drawn"
    drawn.mkdir()

    def work():
        def noting(self, values):
            result = torch.nn.functional.dropout(values, 0.5, self.training)
            if self.training:
                with (drawn / str(distributed.rank())).open("a") as file:
                    file.write(f"{(result == 0).tolist()}\n")
            return result

        nn.Dropout.forward = noting
        toy_run(tmp_path, {"downstream_expert": {"batch_size": 2}})

    assert processes(work) == [0, 0]
    one, other = ((drawn / rank).read_text().splitlines() for rank in "01")
    assert len(set(one) & set(other)) < 4


def test_each_process_has_other_random_numbers_for_its_upstream(tmp_path):
    """While the batches come in one order."""
    drawn = tmp_path / "drawn"
    drawn.mkdir()
    forward = Upstream.forward

    def work():
        def noting(self, wavs):
            if self.training:
                with (drawn / str(distributed.rank())).open("a") as file:
                    file.write(f"{torch.rand(()).item()}\n")
            return forward(self, wavs)

        Upstream.forward = noting
        toy_run(tmp_path, changes(2), upstream_trainable=True)

    assert processes(work) == [0, 0]
    one, other = ((drawn / rank).read_text().splitlines() for rank in "01")
    assert len({*one, *other}) == len(one) + len(other) > 40


@pytest.mark.parametrize("counts", [(2, 1), (1, 2)])
def test_continued_with_another_number_of_processes(tmp_path, counts):
    """And with the share of the batch that each then gets: it ends as if nothing had changed."""
    runner = {"runner": {"gradient_accumulate_steps": 1}}
    one = toy_run(tmp_path / "one", {**changes(22), **runner})
    before, after = counts
    begun = partial(toy_run, tmp_path / "other", {**changes(22 // before), **runner})
    assert set(processes(stopped_at(5, begun), before)) == {STOPPED}
    override = f"config.downstream_expert.batch_size={22 // after}"
    assert set(processes(partial(begun, auto_resume=True, override=override), after)) == {0}
    assert_close(one, tmp_path / "other/run")


@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 3)])
def test_continued_in_an_epoch_by_another_number_of_processes(tmp_path, counts):
    """The rest of its batches are dealt once."""
    before, after = counts
    work = partial(toy_run, tmp_path, {**changes(2), "runner": {"gradient_accumulate_steps": 1}}, auto_resume=True)
    stop = 4 if before == 2 else 6
    first, second = tmp_path / "first", tmp_path / "second"
    assert set(processes(_noting(stopped_at(stop, work), first), before)) == {STOPPED}
    done = load_checkpoint(tmp_path / f"run/states-{stop}.ckpt")["Batches"]
    assert done == stop * before < 11
    assert set(processes(_noting(work, second), after)) == {0}
    rounds = -(-(11 - done) // after)
    seen = [name for batches in _noted(first) for batch in batches for name in batch]
    seen += [name for batches in _noted(second) for batch in batches[: rounds - 1] for name in batch]
    last = [batches[rounds - 1] for batches in _noted(second)[: 11 - done - (rounds - 1) * after]]
    seen += [name for batch in last for name in batch]
    assert sorted(seen) == sorted(f"u{number}" for number in range(22))


def _noted(folder):
    """The names of every batch, by process."""
    return [[line.split() for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())]


def _noting(work, folder):
    forward = DownstreamExpert.forward

    folder.mkdir()

    def notes():
        def noting(self, split, features, labels, names, records, **others):
            if split == "train":
                with (folder / str(distributed.rank())).open("a") as file:
                    file.write(" ".join(names) + "\n")
            return forward(self, split, features, labels, names, records, **others)

        DownstreamExpert.forward = noting
        work()

    return notes


def test_evaluate_shares_the_batches(tmp_path):
    folder = toy_run(tmp_path)
    arguments = RunArguments(mode="evaluate", past_exp=str(folder / "dev-best.ckpt"), device="cpu")
    run(arguments)
    place = folder / "evaluate/dev-best-test"
    alone = json.loads((place / "metrics.json").read_text()), (place / "test_predict.txt").read_text()
    (place / "metrics.json").unlink()
    assert processes(partial(run, arguments)) == [0, 0]
    together = json.loads((place / "metrics.json").read_text()), (place / "test_predict.txt").read_text()
    assert together[1] == alone[1]
    assert together[0] == alone[0]


def test_batches_are_shared_out():
    """Every batch is in one process, in turns, from any number on."""

    def work():
        with distributed.joined("nccl", None, gpu=False):
            for begin in range(6):
                loader, skip = distributed.share(DataLoader(range(11), batch_size=2), begin)
                mine = [batch.tolist() for batch in loader]
                whole = [batch.tolist() for batch in DataLoader(range(11), batch_size=2)][begin:]
                everything = distributed.gathered(mine)
                if distributed.is_first():
                    assert [everything[index % 2][index // 2] for index in range(len(whole))] == whole
                    assert sum(map(len, everything)) == len(whole)
                assert (skip, len(loader)) == (0, len(mine))

    assert processes(work) == [0, 0]


def test_loaders_that_share_themselves_are_left_alone():
    def work():
        with distributed.joined("nccl", None, gpu=False):
            loader = DataLoader(range(12), batch_size=2, sampler=DistributedSampler(range(12)))
            assert distributed.share(loader, 4) == (loader, 2)
            assert distributed.batches_of(loader) == 6

    assert processes(work) == [0, 0]


def test_loaders_that_cannot_be_shared_out():
    with pytest.raises(ConfigError, match="not a DataLoader that makes batches"):
        distributed.share([1, 2], 0)


def test_the_mean_of_gradients_is_the_mean():
    """Of parameters with a gradient, with one in one process only, and with none."""

    def work():
        with distributed.joined("nccl", None, gpu=False):
            some, half, none = (nn.Parameter(torch.full((2,), float(distributed.rank()))) for _ in range(3))
            mean = distributed.MeanGradients([some, half, none])
            assert some.tolist() == [0, 0]  # everybody's are the first one's
            for _ in range(2):
                some.grad = torch.tensor([1.0, 10.0]) * (1 + distributed.rank())
                half.grad = torch.ones(2) if distributed.rank() == 1 else None
                none.grad = None
                mean.reduce()
                assert some.grad.tolist() == [1.5, 15]
                assert half.grad.tolist() == [0.5, 0.5]
                assert none.grad.tolist() == [0, 0]

    assert processes(work) == [0, 0]


def test_agreeing():
    def work():
        with distributed.joined("nccl", None, gpu=False):
            place = distributed.rank()
            assert distributed.world_size() == 2
            assert distributed.total(place + 1) == 3
            assert distributed.largest(place + 1) == 2
            assert distributed.from_first({"a": place}) == {"a": 0}
            found = distributed.gathered({"a": [torch.ones(1) * place]})
            assert [one["a"][0].item() for one in found] == ([0.0, 1.0] if place == 0 else [])
            assert distributed.own(["first", "second"]) == ("first", "second")[place]
            assert distributed.own(["first"]) == ("first", None)[place]
            assert distributed.own(None) is None
            with distributed.joined("nccl", None, gpu=False):  # a run within a run
                assert distributed.world_size() == 2
            assert distributed.world_size() == 2

    assert processes(work) == [0, 0]


def test_the_first_goes_ahead(tmp_path):
    def work():
        with distributed.joined("nccl", None, gpu=False), distributed.first_goes_ahead():
            if distributed.is_first():
                assert not (tmp_path / "made").exists()
                (tmp_path / "made").mkdir()
            else:
                assert (tmp_path / "made").exists()

    assert processes(work) == [0, 0]


def test_a_local_rank_needs_a_launcher(tmp_path):
    with pytest.raises(ConfigError, match=r"`--local_rank` comes from a launcher: .*torchrun"):
        toy_run(tmp_path, local_rank=0)


def test_inference_is_for_one_process(tmp_path):
    folder = toy_run(tmp_path)

    def work():
        with pytest.raises(ConfigError, match="`-m inference` is for one process"):
            run(RunArguments(mode="inference", past_exp=str(folder), device="cpu"))

    assert processes(work) == [0, 0]


def thread_states():
    """How many threads Python has known so far; that of this call is one of them."""
    python, found = ctypes.pythonapi, []
    python.PyThreadState_Get.restype = ctypes.c_void_p
    python.PyThreadState_GetID.argtypes, python.PyThreadState_GetID.restype = [ctypes.c_void_p], ctypes.c_uint64
    thread = threading.Thread(target=lambda: found.append(python.PyThreadState_GetID(python.PyThreadState_Get())))
    thread.start()
    thread.join()
    return found[0]


def test_gloos_threads_leave_python_alone():
    """A fork in the middle of a thread's coming hangs, with Python 3.10; at Python's end the thread aborts it."""

    def work():
        with distributed.joined("nccl", None, gpu=False):
            gradients = distributed.MeanGradients([nn.Parameter(torch.ones(3))])
            time.sleep(0.5)  # its own collectives are over
            before = thread_states()
            for number in range(200):
                assert distributed.from_first({"text": torch.full((number,), distributed.rank())})["text"].sum() == 0
                assert distributed.total(distributed.rank() + 1) == 3
                told = distributed.gathered(list(range(number + distributed.rank())))
                assert [len(entry) for entry in told] == ([number, number + 1] if distributed.is_first() else [])
                gradients.reduce()
            assert thread_states() == before + 1

    assert processes(work) == [0, 0]


def test_nobody_leaves_before_the_first(tmp_path):
    """Who fails while Python ends would take the first one's results along."""

    def work():
        with distributed.joined("nccl", None, gpu=False):
            if distributed.is_first():
                time.sleep(1)
                (tmp_path / "written").touch()
        assert (tmp_path / "written").exists()

    assert processes(work) == [0, 0]


def test_torchrun(tmp_path):
    """The real thing, with the command line and one of our own tasks."""
    (corpus,) = make_mini_superb(tmp_path / "mini", corpora=["fluent_speech_commands"], scale=0.03)
    flags = train_flags(corpus, tmp_path / "run", "", "--interface", "hconv", "--local_rank", "0")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "s3prl_interfaces.cli", "run", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    result = read_result(tmp_path / "run/results.json")
    truths = [len((tmp_path / f"run/{split}_truth.csv").read_text().splitlines()) for split in ("dev", "test")]
    assert truths == [result.counts["dev"], result.counts["test"]]
    assert done.stderr.count("Results: ") == 1


def test_a_second_signal_is_torchruns(tmp_path):
    """A terminal signals every process, and torchrun passes on what it got itself."""
    assert processes(stopped_at(5, partial(toy_run, tmp_path), times=2)) == [STOPPED, STOPPED]
    assert (tmp_path / "run/states-5.ckpt").exists()


@pytest.mark.parametrize("to_all", [True, False])
def test_torchrun_is_stopped(tmp_path, to_all):
    """By a terminal, which signals every process before torchrun passes it on; and by what signals torchrun alone."""
    (corpus,) = make_mini_superb(tmp_path / "mini", corpora=["fluent_speech_commands"], scale=0.03)
    long = "config.runner.total_steps=100000,,config.downstream_expert.datarc.num_workers=1"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "s3prl_interfaces.cli", "run", *train_flags(corpus, tmp_path / "run", long)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not list(tmp_path.glob("run/states-*.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    if to_all:
        os.killpg(process.pid, signal.SIGINT)
    else:
        os.kill(process.pid, signal.SIGTERM)
    told = process.stderr.read()
    process.wait(60)
    name = "SIGINT" if to_all else "SIGTERM"
    assert told.count(f"Stopped by {name}; what was done is saved. Continue with `-a`.") == 2
    (kept,) = (tmp_path / "run").glob("states-*.ckpt")
    assert load_checkpoint(kept)["Step"] > 0


def test_a_process_that_fails_fails():
    """What the tests above stand on."""
    assert processes(lambda: sys.exit(1)) == [FAILED, FAILED]
