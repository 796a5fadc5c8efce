"""What can go wrong in the middle of training: numbers, memory, worker processes, the disk."""

import logging
import os
import resource
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from s3prl_interfaces.errors import DataError, UserError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import experiment
from s3prl_interfaces.runner.accumulation import Accumulation, MicroBatch
from s3prl_interfaces.runner.batches import Batches
from s3prl_interfaces.runner.lane import Lane
from tests.runner.test_runs import assert_same, weights
from tests.runner.test_stopping import FAILED, in_a_process
from tests.runner.toys import DownstreamExpert, Upstream, toy_run

PLAIN = {"downstream_expert": {"crop": False}}
"""Together with :func:`no_dropout`: nothing depends on how utterances are put together."""


@pytest.fixture
def no_dropout(monkeypatch):
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, values: values)


# Numbers.


def names_in(text):
    return [word.strip(".,") for word in text.split() if word.startswith("u") and word.strip("u.,").isdigit()]


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_loss_that_is_not_finite_names_its_utterances(tmp_path, monkeypatch, caplog, number):
    """Of the two micro-batches of an update, those of the one."""
    forward = DownstreamExpert.forward
    seen = []

    def broken(self, split, features, labels, names, records, **others):
        loss = forward(self, split, features, labels, names, records, **others)
        seen.append(names)
        return loss * float(number) if split == "train" and len(seen) == 4 else loss

    monkeypatch.setattr(DownstreamExpert, "forward", broken)
    toy_run(tmp_path)
    (message,) = (line for line in caplog.messages if "this update is skipped" in line)
    assert message.startswith("Step 2, weighted_sum: the gradient norm is nan; ")
    assert "The loss was not finite with" in message
    assert names_in(message) == list(seen[3])


def test_a_gradient_that_is_not_finite_names_all_utterances_of_its_update(tmp_path, monkeypatch, caplog):
    forward = DownstreamExpert.forward
    seen = []

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    def broken(self, split, features, labels, names, records, **others):
        loss = forward(self, split, features, labels, names, records, **others)
        seen.append(names)
        return Broken.apply(loss) if split == "train" and len(seen) == 4 else loss

    monkeypatch.setattr(DownstreamExpert, "forward", broken)
    toy_run(tmp_path)
    (message,) = (line for line in caplog.messages if "this update is skipped" in line)
    assert "The losses were finite; the utterances are" in message
    assert names_in(message) == [*seen[2], *seen[3]]


def test_without_names_the_batches_are_named():
    lane = object.__new__(Lane)
    gradients = object.__new__(Accumulation)
    gradients.batches = [MicroBatch([torch.ones(2)] * 2, [torch.ones(2)], number, 2) for number in (3, 4)]
    for batch in gradients.batches:
        batch.losses[lane] = torch.tensor(1.0)
    assert gradients.suspects(lane).endswith("those of batch 3, 4 of the epoch")


# Memory.


class Memory:
    """Of a GPU: holds so many utterances at once."""

    def __init__(self, monkeypatch, room, place):
        self.asked = []
        owner, name = {"upstream": (Upstream, "forward"), "head": (Lane, "loss"), "backward": (Lane, "loss")}[place]
        function = getattr(owner, name)

        def limited(this, *arguments, **more):
            training = place == "upstream" or arguments[0] == "train"
            wavs = arguments[0 if place == "upstream" else 1]
            if not training or (len(wavs) == 1 and len(wavs[0]) == 16000):  # one second, to read the upstream's sizes
                return function(this, *arguments, **more)
            self.asked.append(len(wavs))
            full = len(wavs) > room
            if full and place != "backward":
                raise torch.OutOfMemoryError("CUDA out of memory")
            result = function(this, *arguments, **more)
            if full:
                result = _FullInBackward.apply(result, *this.head.parameters())
            return result

        monkeypatch.setattr(owner, name, limited)


class _FullInBackward(torch.autograd.Function):
    """Leaves gradients in some parameters, then fails."""

    @staticmethod
    def forward(ctx, loss, *parameters):
        ctx.parameters = parameters
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        parameter = ctx.parameters[0]
        parameter.grad = torch.full_like(parameter, 1e6)
        raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("room", [1, 2, 3])
@pytest.mark.parametrize("place", ["upstream", "head", "backward"])
def test_a_batch_that_is_too_large_goes_through_in_parts(tmp_path, monkeypatch, no_dropout, caplog, place, room):
    whole = toy_run(tmp_path / "whole", PLAIN)
    with monkeypatch.context() as patch:
        if place == "upstream":  # evaluations go through it whole
            patch.setattr(experiment, "finish", lambda *_: None)
            changes = {**PLAIN, "runner": {"eval_dataloaders": []}}
            whole = toy_run(tmp_path / "unevaluated", changes)
        else:
            changes = PLAIN
        memory = Memory(patch, room, place)
        parts = toy_run(tmp_path / "parts", changes)
    one, other = weights(whole), weights(parts)
    for key, value in one.items():
        if "best_score" not in key:
            torch.testing.assert_close(other[key], value, atol=1e-5, rtol=1e-4, msg=key)
    warned = [line for line in caplog.messages if "from now on" in line]
    assert warned[0] == (
        "Out of GPU memory at step 1 with 4 utterances of up to 0.2 s: from now on batches go through in 2 parts."
    )
    assert len(warned) == (2 if room == 1 else 1)
    assert max(memory.asked[3:]) <= room  # found out once, not at every batch


def test_nothing_is_recorded_twice(tmp_path, monkeypatch, no_dropout):
    """24 batches of 22 utterances in four epochs: 4 x 22 in all, those that were tried again included."""
    counted = []
    log_records = DownstreamExpert.log_records

    def counting(self, split, records, **more):
        if split == "train":
            counted.append((sorted(records["names"]), len(more["batch_ids"])))
        return log_records(self, split, records, **more)

    monkeypatch.setattr(DownstreamExpert, "log_records", counting)
    toy_run(tmp_path / "whole", PLAIN)
    whole = list(counted)
    del counted[:]
    Memory(monkeypatch, 2, "backward")
    toy_run(tmp_path / "parts", PLAIN)
    assert counted == whole
    assert sum(len(names) for names, _ in counted) == 88


def test_dropout_is_drawn_once_for_what_is_done_again(tmp_path, monkeypatch):
    """Of an update whose second batch was too large the first one is drawn as before."""
    drawn = []
    forward = nn.Dropout.forward

    def spying(self, values):
        result = forward(self, values)
        drawn.append(result.detach().clone())
        return result

    monkeypatch.setattr(nn.Dropout, "forward", spying)
    loss = Lane.loss

    def fails_once(self, split, wavs, *others, **more):
        result = loss(self, split, wavs, *others, **more)
        if len(drawn) == 2:
            raise torch.OutOfMemoryError
        return result

    monkeypatch.setattr(Lane, "loss", fails_once)
    toy_run(tmp_path, {**PLAIN, "runner": {"total_steps": 1}})
    assert torch.equal(drawn[0][0], drawn[2][0])
    assert not torch.equal(drawn[0], drawn[1])


def test_an_utterance_that_is_too_large_alone(tmp_path, monkeypatch):
    Memory(monkeypatch, 0, "head")
    with pytest.raises(UserError, match=r"at step 1 with 1 utterance of up to .*cannot be divided.*`max_seconds`"):
        toy_run(tmp_path)


def test_batches_that_cannot_be_divided(tmp_path, monkeypatch):
    collate = DownstreamExpert._collate
    monkeypatch.setattr(DownstreamExpert, "_collate", lambda *them: (*collate(*them), torch.ones(3)))
    forward = DownstreamExpert.forward
    monkeypatch.setattr(DownstreamExpert, "forward", lambda self, *them, **more: forward(self, *them[:4], **more))
    Memory(monkeypatch, 2, "head")
    with pytest.raises(UserError, match=r"with 4 utterances .* cannot be divided"):
        toy_run(tmp_path)


def test_an_evaluation_that_is_too_large(tmp_path, monkeypatch):
    forward = Upstream.forward

    def full(self, wavs):
        if len(wavs) == 3:  # dev's last batch
            raise torch.OutOfMemoryError
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", full)
    changes = {"runner": {"total_steps": 4}}  # training has batches of 4 and, at the end of an epoch, of 2
    with pytest.raises(
        UserError, match=r"Out of GPU memory in an evaluation of `dev`: lower the task's `eval_batch_size"
    ):
        toy_run(tmp_path, changes)


# Worker processes.


class Deadly(list):
    """Items whose number ``at`` kills the process that reads it, as often as ``times`` says."""

    def __init__(self, items, at, times, notes):
        super().__init__(items)
        self.at, self.times, self.notes = at, times, Path(notes)

    def __getitem__(self, index):
        done = len(list(self.notes.iterdir()))
        if index == self.at and done < self.times:
            (self.notes / str(done)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def deadly(monkeypatch, split, at, times, notes):
    get_dataloader = DownstreamExpert.get_dataloader
    notes.mkdir()

    def dies(self, of, epoch=0):
        loader = get_dataloader(self, of, epoch)
        if of != split:
            return loader
        items = Deadly(loader.dataset, at, times, notes)
        more = {"batch_size": 4, "shuffle": split == "train", "collate_fn": loader.collate_fn}
        return DataLoader(items, num_workers=loader.num_workers, **more)

    monkeypatch.setattr(DownstreamExpert, "get_dataloader", dies)


@pytest.mark.parametrize(("split", "times"), [("train", 2), ("dev", 1), ("test", 1)])
def test_a_worker_that_dies_is_replaced(tmp_path, monkeypatch, caplog, split, times):
    forward = Upstream.forward

    def drawing(self, wavs):
        torch.rand(()) if self.training else None  # as dropout in an upstream that is fine-tuned
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", drawing)
    changes = {"downstream_expert": {"num_workers": 2, "crop": False}}
    order = []
    expert = DownstreamExpert.forward

    def noting(self, of, features, labels, names, records, **others):
        order.extend(names if of == split else ())
        return expert(self, of, features, labels, names, records, **others)

    with monkeypatch.context() as patch:
        patch.setattr(DownstreamExpert, "forward", noting)
        whole = toy_run(tmp_path / "whole", changes, upstream_trainable=True)
    at = int(order[18 if split == "train" else 5][1:]) % 100  # in the middle of the fifth batch, and of the second
    deadly(monkeypatch, split, at, times, tmp_path / "notes")
    other = toy_run(tmp_path / "other", changes, upstream_trainable=True)
    assert_same(weights(whole), weights(other))
    assert read_result(whole / "results.json").metrics == read_result(other / "results.json").metrics
    for name in ("losses.txt", "test_predict.txt"):
        assert (whole / name).read_text() == (other / name).read_text()
    told = [line for line in caplog.messages if "a worker process of the loader died, it is started again" in line]
    assert len(told) == times
    assert all(line.startswith(f"{split}: ") for line in told)


def test_a_workers_death_is_not_told_in_the_middle_of_an_update(tmp_path):
    """PyTorch's handler raises wherever the main process stands; it is set once in a process, by the first loader."""

    def work():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal_handling._SIGCHLD_handler_set = False
        head = DownstreamExpert(6, {"num_workers": 1}, tmp_path)
        assert len([*Batches(head, "dev")]) == 2
        assert signal_handling._SIGCHLD_handler_set
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL

    assert in_a_process(work) == 0


def test_workers_that_die_again_and_again_end_the_run(tmp_path, monkeypatch):
    deadly(monkeypatch, "train", 3, 100, tmp_path / "notes")
    changes = {"downstream_expert": {"num_workers": 1, "crop": False}}
    with pytest.raises(UserError, match=r"train: worker processes .* died 3 times in a row .*smaller `num_workers`"):
        toy_run(tmp_path, changes)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [RuntimeError, ConnectionResetError])
def test_other_errors_of_a_worker_are_not_taken_for_its_death(tmp_path, monkeypatch, caplog, kind, workers):
    def broken(self, batch, split):
        raise kind("DataLoader worker threads are not to blame")

    monkeypatch.setattr(DownstreamExpert, "_collate", broken)
    with pytest.raises(kind, match="not to blame"):
        toy_run(tmp_path, {"downstream_expert": {"num_workers": workers}})
    assert "started again" not in caplog.text


# The disk.


def room_of(size):
    """No file can be larger."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def messages_of(tmp_path, work):
    """What a process of its own logs and raises."""

    def told():
        logging.getLogger("s3prl_interfaces").addHandler(logging.FileHandler("/dev/null"))
        try:
            work()
        except UserError as error:
            (tmp_path / "message").write_text(str(error))
            os._exit(FAILED)

    end = in_a_process(told)
    return end, (tmp_path / "message").read_text() if end == FAILED else ""


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    """The first ones fit; with momenta that grow the later do not: here a limit that comes in the middle."""
    update = Lane.update

    def work():
        def fills(self, step):
            if step == 5:
                room_of(2000)
            return update(self, step)

        Lane.update = fills
        toy_run(tmp_path)

    (tmp_path / "message").touch()
    end, message = messages_of(tmp_path, work)
    assert end == FAILED
    assert "cannot be written" in message
    place = tmp_path / "run"
    assert (place / "states-3.ckpt").exists()
    assert not list(place.glob(".*.partial"))
    # With room again it goes on.
    whole = toy_run(tmp_path / "whole")
    assert_same(weights(toy_run(tmp_path, auto_resume=True)), weights(whole))


def test_a_log_that_cannot_be_written_is_not_worth_a_run(tmp_path, capsys, caplog):
    place = tmp_path / "run"
    place.mkdir()
    (place / "log.txt").symlink_to("/dev/full")
    with caplog.at_level(logging.INFO):
        folder = toy_run(tmp_path)
    assert (folder / "results.json").exists()
    told = [line for line in capsys.readouterr().err.splitlines() if "log.txt cannot be written" in line]
    assert len(told) == 1


def test_events_that_cannot_be_written_are_not_worth_a_run(tmp_path, monkeypatch, caplog):
    from torch.utils.tensorboard import SummaryWriter

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    folder = toy_run(tmp_path)
    assert read_result(folder / "results.json").metrics["dev"]["acc"] > 0
    assert len([line for line in caplog.messages if "TensorBoard's events in" in line]) == 1


def test_predictions_that_cannot_be_written_end_the_run_with_a_message(tmp_path, monkeypatch):
    def full(self, *_, **__):
        raise OSError(28, "No space left on device", "predict.txt")

    monkeypatch.setattr(DownstreamExpert, "log_records", full)
    with pytest.raises(DataError, match=r"cannot be written: .*No space left.* Make room, and continue with `-a`"):
        toy_run(tmp_path)
