"""What a run does between its steps, one thing a test."""

import time

import pytest
import torch

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import experiment, progress
from s3prl_interfaces.runner.checkpoint import load_checkpoint
from tests.runner import toys
from tests.runner.test_runs import StoppedError, assert_same, stop_at, weights
from tests.runner.toys import DownstreamExpert, Upstream, toy_run


def build_after_drawing(**_):
    """The same upstream from a constructor that uses random numbers."""
    torch.randn(1000)
    return Upstream()


@pytest.fixture
def logged(monkeypatch):
    """Every call of the head's ``log_records``: (split, step, keywords)."""
    calls = []
    log_records = DownstreamExpert.log_records

    def listens(self, split, records, logger, global_step, **others):
        calls.append((split, global_step, {"losses": list(records["loss"]), "names": list(records["names"]), **others}))
        return log_records(self, split, records, logger, global_step, **others)

    monkeypatch.setattr(DownstreamExpert, "log_records", listens)
    return calls


def of(logged, split):
    return [(step, content) for name, step, content in logged if name == split]


def test_the_last_step_is_evaluated_too(tmp_path, logged):
    toy_run(tmp_path, override="config.runner.total_steps=5")
    assert [step for step, _ in of(logged, "dev")][:2] == [4, 5]


def test_the_time_of_a_continued_run_counts_from_its_beginning(tmp_path, monkeypatch):
    clock = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with monkeypatch.context() as stopped:
        stop_at(stopped, 7)
        with pytest.raises(StoppedError):
            toy_run(tmp_path)
    before = load_checkpoint(tmp_path / "run" / "states-6.ckpt")["Seconds"]
    assert before > 0
    toy_run(tmp_path, auto_resume=True)
    after = load_checkpoint(tmp_path / "run" / "states-9.ckpt")["Seconds"]
    assert after > before
    assert read_result(tmp_path / "run" / "results.json").seconds["train"] > after


@pytest.mark.parametrize("fine_tuned", [True, False])
def test_an_upstream_is_in_training_mode_only_if_it_is_trained(tmp_path, monkeypatch, fine_tuned):
    modes = {}
    forward = DownstreamExpert.forward

    def listens(self, split, *others, **more):
        modes.setdefault(split, set()).add((seen[-1], self.training))
        return forward(self, split, *others, **more)

    seen = []
    of_upstream = Upstream.forward
    monkeypatch.setattr(
        Upstream, "forward", lambda self, wavs: (seen.append(self.training), of_upstream(self, wavs))[1]
    )
    monkeypatch.setattr(DownstreamExpert, "forward", listens)
    toy_run(tmp_path, upstream_trainable=fine_tuned)
    assert modes == {"train": {(fine_tuned, True)}, "dev": {(False, False)}, "test": {(False, False)}}


@pytest.mark.parametrize(("ratio", "utterances"), [(0.5, 4), (0.01, 4), (1.0, 7)])
def test_a_ratio_shortens_evaluations_on_the_way_but_not_the_last(tmp_path, logged, ratio, utterances):
    """7 dev utterances in 2 batches; at least one batch is seen."""
    folder = toy_run(tmp_path, override=f"config.runner.evaluate_ratio={ratio}")
    seen = [len(content["names"]) for _, content in of(logged, "dev")]
    assert seen == [utterances] * 3 + [7]
    assert read_result(folder / "results.json").counts["dev"] == 7
    first = of(logged, "dev")[0][1]
    assert first["batch_ids"] == list(range(len(first["losses"])))
    assert first["total_batch_num"] == 2


def test_masks_are_for_training_only(tmp_path, monkeypatch):
    from s3prl.downstream.specaug import SpecAug

    seen = []
    forward = SpecAug.forward
    monkeypatch.setattr(
        SpecAug, "forward", lambda self, features: (seen.append(len(features)), forward(self, features))[1]
    )
    masks = {"apply_time_warp": False, "apply_freq_mask": False, "time_mask_width_range": [0, 2]}
    toy_run(tmp_path, {"specaug": masks})
    assert len(seen) == 24  # two batches to each of 12 updates, and none of dev and test


def test_each_log_has_what_was_since_the_last(tmp_path, logged):
    """An update is two batches, and an epoch six: the third log ends the first epoch."""
    toy_run(tmp_path, {"runner": {**toys.CONFIG["runner"], "log_step": 2}})
    trained = of(logged, "train")
    assert [step for step, _ in trained] == [2, 4, 6, 8, 10, 12]
    assert all(len(content["losses"]) == 4 for _, content in trained)
    assert [content["batch_ids"] for _, content in trained[:2]] == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_what_an_upstreams_constructor_draws_changes_nothing(tmp_path):
    plain = toy_run(tmp_path / "plain")
    other = toy_run(tmp_path / "other", upstream=f"{__name__}:build_after_drawing")
    assert_same(weights(plain), weights(other))


def test_skipped_updates_are_counted_on(tmp_path, monkeypatch):
    with monkeypatch.context() as stopped:
        stop_at(stopped, 7)
        with pytest.raises(StoppedError):
            toy_run(tmp_path, {"downstream_expert": {"nan_at": 2}})
    assert load_checkpoint(tmp_path / "run" / "states-6.ckpt")["SkippedUpdates"] == 1
    toy_run(tmp_path, {"downstream_expert": {"nan_at": 2}}, auto_resume=True)
    # The new head counts its batches from 0 again, so the third one after the pause is bad too.
    assert load_checkpoint(tmp_path / "run" / "states-12.ckpt")["SkippedUpdates"] == 2


def test_the_same_weights_are_scored_the_same_whenever(tmp_path, logged, monkeypatch):
    """Also where an evaluation draws random numbers: each begins with the run's seed."""
    forward = DownstreamExpert.forward

    def noisy(self, split, features, *others, **more):
        if not self.training:
            features = [feature + torch.randn_like(feature) for feature in features]
        return forward(self, split, features, *others, **more)

    monkeypatch.setattr(DownstreamExpert, "forward", noisy)
    folder = toy_run(tmp_path)
    step = read_result(folder / "results.json").metrics["dev"]["step"]
    on_the_way, at_the_end = [content["losses"] for at, content in of(logged, "dev") if at == step][-2:]
    assert on_the_way == at_the_end


@pytest.mark.parametrize("fine_tuned", [True, False])
def test_the_parameters_of_a_fine_tuned_upstream_are_counted(tmp_path, fine_tuned):
    result = read_result(toy_run(tmp_path, upstream_trainable=fine_tuned) / "results.json")
    assert result.parameters["upstream_trainable"] == (3 * 6 * 320 if fine_tuned else 0)


def test_an_upstreams_checkpoint_is_part_of_its_name(tmp_path):
    result = read_result(toy_run(tmp_path, upstream_ckpt="some/where/best.pt") / "results.json")
    assert result.upstream == "tests.runner.toys:build (best.pt)"


def test_a_metric_that_is_not_a_number_is_left_out_and_told(tmp_path, monkeypatch, caplog):
    log_records = DownstreamExpert.log_records

    def more(self, split, records, logger, global_step, **others):
        logger.add_scalar(f"toy/{split}-f1", float("nan"), global_step=global_step)
        return log_records(self, split, records, logger, global_step, **others)

    monkeypatch.setattr(DownstreamExpert, "log_records", more)
    result = read_result(toy_run(tmp_path) / "results.json")
    assert result.metrics["test"].keys() == {"acc", "loss", "step"}
    assert any("test f1 is nan: left out of results.json" in message for message in caplog.messages)


def test_a_batch_of_which_nothing_could_be_read_is_passed_over(tmp_path, monkeypatch):
    """What a loader gives for it is ``((),)``, see downstream_tasks/loading.py."""

    class WithEmptyBatches:
        def __init__(self, loader):
            self.loader = loader

        def __len__(self):
            return 2 * len(self.loader)

        def __iter__(self):
            for batch in self.loader:
                yield ((),)
                yield batch

    get_dataloader = DownstreamExpert.get_dataloader
    whole = toy_run(tmp_path / "whole")
    monkeypatch.setattr(
        DownstreamExpert,
        "get_dataloader",
        lambda self, *key, **more: WithEmptyBatches(get_dataloader(self, *key, **more)),
    )
    other = toy_run(tmp_path / "other")
    assert_same(weights(whole), weights(other))
    assert read_result(other / "results.json").counts == {"dev": 7, "test": 9}


def test_a_run_of_which_nothing_can_be_read_ends(tmp_path, monkeypatch):
    def get_dataloader(self, split, epoch=0):
        return [((),)] * 3

    monkeypatch.setattr(DownstreamExpert, "get_dataloader", get_dataloader)
    with pytest.raises(DataError, match="train: no utterance could be read"):
        toy_run(tmp_path)


def test_an_interface_is_fitted_at_the_start_only(tmp_path, monkeypatch):
    """A checkpoint holds the fit."""
    fitted = []
    monkeypatch.setattr(
        experiment, "fit_interfaces", lambda upstream, lanes, device: fitted.extend(lane.folder for lane in lanes)
    )
    with monkeypatch.context() as stopped:
        stop_at(stopped, 7)
        with pytest.raises(StoppedError):
            toy_run(tmp_path)
    assert fitted == [tmp_path / "run"]
    toy_run(tmp_path, auto_resume=True)
    assert fitted == [tmp_path / "run"]


def test_a_fine_tuned_upstream_is_continued_too(tmp_path, monkeypatch):
    whole = toy_run(tmp_path / "whole", upstream_trainable=True)
    with monkeypatch.context() as stopped:
        stop_at(stopped, 7)
        with pytest.raises(StoppedError):
            toy_run(tmp_path / "stopped", upstream_trainable=True)
    other = toy_run(tmp_path / "stopped", upstream_trainable=True, auto_resume=True)
    assert_same(weights(whole), weights(other))
    one, same = (load_checkpoint(folder / "states-12.ckpt")["Upstream"]["weight"] for folder in (whole, other))
    assert torch.equal(one, same)


def test_the_loss_is_shown_once_a_second_at_most(tmp_path, monkeypatch):
    """On a GPU every number that is read makes the host wait."""
    shown, clock = [], [0.0]

    class Bar(progress.tqdm):
        def set_postfix(self, loss, **_):
            shown.append((clock[0], float(loss)))

        def update(self, n=1):
            clock[0] += 0.4

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    folder = toy_run(tmp_path)
    assert [moment for moment, _ in shown] == pytest.approx([0.0, 1.2, 2.4, 3.6])
    losses = (folder / "losses.txt").read_text().splitlines()
    assert [loss for _, loss in shown] == pytest.approx([float(losses[index]) for index in (1, 7, 13, 19)], abs=1e-4)


@pytest.fixture
def default_tf32():
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    yield torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True


@pytest.mark.parametrize(
    ("asked", "products", "convolutions"), [(None, False, True), (True, True, True), (False, False, False)]
)
def test_tf32(tmp_path, default_tf32, asked, products, convolutions):
    """PyTorch's own default is TF32 in convolutions alone; an earlier run in the same process leaves nothing behind."""
    assert default_tf32 == (False, True)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = not products, not convolutions
    toy_run(tmp_path, {"runner": {"tf32": asked, "total_steps": 1}})
    assert torch.backends.cuda.matmul.allow_tf32 is products
    assert torch.backends.cudnn.allow_tf32 is convolutions
