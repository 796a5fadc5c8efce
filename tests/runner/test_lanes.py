"""Several interfaces over one pass of the upstream: each is what it would have been alone."""

import json

import pytest
import torch
import yaml

from s3prl_interfaces import load_experiment
from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint, step_checkpoints
from s3prl_interfaces.runner.lane import PATIENCE, Lane
from tests.runner.test_runs import assert_same, flat, weights
from tests.runner.toys import CONFIG, DownstreamExpert, Upstream, toy_run

THREE = ["weighted_sum", "hconv:normalize=true", "cls_pooling:dropout=0.3"]
FOLDERS = ["weighted_sum", "hconv-normalize=true", "cls_pooling-dropout=0.3"]


class KilledError(BaseException):
    """Stands for a kill, which no lane survives."""


def assert_like_solo(lane, solo):
    """Weights, optimizer, losses, predictions and scores, bit for bit."""
    assert_same(weights(lane), weights(solo))
    for name in ("losses.txt", "dev_predict.txt", "test_predict.txt"):
        assert (lane / name).read_text() == (solo / name).read_text()
    assert {path.name for path in lane.glob("*.ckpt")} == {path.name for path in solo.glob("*.ckpt")}
    one, other = (read_result(folder / "results.json") for folder in (lane, solo))
    for key in ("metrics", "primary", "selection", "interface", "interface_options", "seed", "data_seed", "label"):
        assert getattr(one, key) == getattr(other, key), key
    assert one.identity == other.identity
    assert one.config_sha256 == other.config_sha256
    assert one.parameters == other.parameters
    assert one.macs_per_second == other.macs_per_second > 0


@pytest.fixture
def passes(monkeypatch):
    """Counts the batches that went through the upstream."""
    counted = []
    forward = Upstream.forward

    def counting(self, wavs):
        counted.append(len(wavs))
        return forward(self, wavs)

    monkeypatch.setattr(Upstream, "forward", counting)
    return counted


def test_lanes_are_what_they_would_be_alone(tmp_path, passes):
    folder = toy_run(tmp_path / "lanes", interface=THREE)
    together = len(passes)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FOLDERS, "lanes.yaml"])
    for text, name in zip(THREE, FOLDERS, strict=True):
        del passes[:]
        assert_like_solo(folder / name, toy_run(tmp_path / name, interface=[text]))
    # Two more looks at one second of noise, to read the sizes.
    assert together == len(passes) + 2


def test_also_where_a_head_draws_random_numbers_in_an_evaluation(tmp_path, monkeypatch):
    forward = DownstreamExpert.forward

    def noisy(self, split, features, *others, **kwargs):
        noise = 2 * torch.rand(())
        return forward(self, split, [noise * feature for feature in features], *others, **kwargs)

    monkeypatch.setattr(DownstreamExpert, "forward", noisy)
    folder = toy_run(tmp_path / "lanes", interface=THREE)
    for text, name in zip(THREE, FOLDERS, strict=True):
        assert_like_solo(folder / name, toy_run(tmp_path / name, interface=[text]))


def test_interfaces_that_are_fitted_are_fitted_in_one_pass(tmp_path, passes):
    lanes = ["pca_concat", "weighted_sum", "pca_concat:normalize=true"]
    folder = toy_run(tmp_path / "lanes", interface=lanes)
    together = sum(passes)
    for text, name in zip(lanes, ["pca_concat", "weighted_sum", "pca_concat-normalize=true"], strict=True):
        del passes[:]
        assert_like_solo(folder / name, toy_run(tmp_path / name, interface=[text]))
    assert together == sum(passes) + 2


def test_seeds_and_learning_rates_are_lanes_too(tmp_path, passes):
    folder = toy_run(tmp_path / "lanes", seeds=[1, 2], lr=[0.1, 0.01], seed=5)
    together = len(passes)
    names = {f"weighted_sum-seed={seed}-lr={lr}" for seed in (1, 2) for lr in (0.1, 0.01)}
    assert {path.name for path in folder.iterdir()} == names | {"lanes.yaml"}
    del passes[:]
    changes = {"optimizer": {**CONFIG["optimizer"], "lr": 0.01}}
    solo = toy_run(tmp_path / "solo", changes, seed=2, data_seed=5)
    assert_like_solo(folder / "weighted_sum-seed=2-lr=0.01", solo)
    assert together == len(passes) + 3
    result = read_result(solo / "results.json")
    assert (result.seed, result.data_seed, result.learning_rate) == (2, 5, 0.01)
    # The data come in one order; what is initialised and dropped does not.
    first, second = (weights(folder / f"weighted_sum-seed={seed}-lr=0.01") for seed in (1, 2))
    assert not torch.equal(first["Downstream.linear.weight"], second["Downstream.linear.weight"])


def test_the_data_seed_is_the_seed_of_the_data_alone(tmp_path, monkeypatch):
    seen = []
    forward = DownstreamExpert.forward

    def spying(self, split, features, labels, names, records, **others):
        if split == "train":
            seen.append((list(names), self.linear.weight[0, 0].item()))
        return forward(self, split, features, labels, names, records, **others)

    monkeypatch.setattr(DownstreamExpert, "forward", spying)
    dealt = {}
    for seed, data_seed in ((1, None), (1, 1), (1, 2), (3, 1)):
        del seen[:]
        toy_run(tmp_path / f"{seed} {data_seed}", seed=seed, data_seed=data_seed)
        dealt[seed, data_seed] = [names for names, _ in seen], seen[0][1]
    assert dealt[1, None] == dealt[1, 1]
    assert dealt[1, 2][0] != dealt[1, 1][0] == dealt[3, 1][0]
    assert dealt[1, 2][1] == dealt[1, 1][1] != dealt[3, 1][1]


def test_an_expert_is_told_the_seed_of_the_data(tmp_path, monkeypatch):
    """Our experts deal their batches by it."""
    told = []
    build = DownstreamExpert.__init__

    def spying(self, *sizes, seed, **others):
        told.append(seed)
        build(self, *sizes, **others)

    monkeypatch.setattr(DownstreamExpert, "__init__", spying)
    toy_run(tmp_path / "solo", seed=2, data_seed=5)
    toy_run(tmp_path / "lanes", seeds=[1, 2], seed=7)
    assert told == [5, 7, 7]


def test_normalize_both_makes_every_lane_twice(tmp_path):
    folder = toy_run(tmp_path, interface=["weighted_sum", "concat"], normalize="both")
    results = {path.parent.name: read_result(path) for path in folder.glob("*/results.json")}
    assert set(results) == {name + more for name in ("weighted_sum", "concat") for more in ("", "-normalize=true")}
    assert results["concat"].interface_options == {}
    assert results["concat-normalize=true"].interface_options == {"normalize": True}
    assert results["concat"].metrics != results["concat-normalize=true"].metrics


def test_lanes_in_yaml(tmp_path):
    folder = toy_run(tmp_path)  # makes toy.yaml too
    config = yaml.safe_load((tmp_path / "toy.yaml").read_text())
    config["interfaces"] = ["concat", {"name": "hconv", "kernel_size": 3}]
    (tmp_path / "lanes.yaml").write_text(yaml.safe_dump(config))
    toy_run(tmp_path, config=[str(tmp_path / "lanes.yaml")], expdir=str(tmp_path / "lanes"))
    assert {path.parent.name for path in (tmp_path / "lanes").glob("*/results.json")} == {
        "concat",
        "hconv-kernel_size=3",
    }
    stored = yaml.safe_load((tmp_path / "lanes/hconv-kernel_size=3/config.yaml").read_text())
    assert stored["interface"] == {"name": "hconv", "kernel_size": 3}
    assert "interfaces" not in stored
    # The command line wins, and one lane is a run without lanes.
    toy_run(tmp_path, config=[str(tmp_path / "lanes.yaml")], interface=["concat"], expdir=str(tmp_path / "one"))
    assert (tmp_path / "one/results.json").exists()
    assert folder.exists()


@pytest.mark.parametrize("stop", [3, 7])
def test_stopped_lanes_end_as_if_they_had_not_been_stopped(tmp_path, monkeypatch, stop):
    changes = {"runner": {"save_step": 2, "max_keep": 1}}
    whole = toy_run(tmp_path / "whole", changes, interface=THREE)
    update = Lane.update

    def dies(self, step):
        if step == stop + 1 and self.interface_name == "hconv":
            raise KilledError
        update(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "update", dies)
        with pytest.raises(KilledError):
            toy_run(tmp_path / "stopped", changes, interface=THREE)
    stopped = toy_run(tmp_path / "stopped", changes, interface=THREE, auto_resume=True)
    for name in FOLDERS:
        assert_same(weights(stopped / name), weights(whole / name))
        assert (
            read_result(stopped / name / "results.json").metrics == read_result(whole / name / "results.json").metrics
        )
        assert [path.name for path in step_checkpoints(stopped / name)] == ["states-12.ckpt"]


@pytest.mark.parametrize("by_folder", [False, True])
def test_a_kill_between_two_lanes_checkpoints_leaves_them_at_one_step(tmp_path, monkeypatch, passes, by_folder):
    changes = {"runner": {"save_step": 3, "max_keep": 1}}
    whole = toy_run(tmp_path / "whole", changes, interface=THREE)
    save = Lane.save

    def dies(self, names, states):
        if "states-6.ckpt" in names and self.interface_name == "hconv":
            raise KilledError
        save(self, names, states)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "save", dies)
        with pytest.raises(KilledError):
            toy_run(tmp_path / "stopped", changes, interface=THREE)
    del passes[:]
    stopped = tmp_path / "stopped/run"
    if by_folder:
        toy_run(tmp_path, past_exp=str(stopped))
    else:
        toy_run(tmp_path / "stopped", changes, interface=THREE, auto_resume=True)
    again = len(passes)
    for name in FOLDERS:
        assert_same(weights(stopped / name), weights(whole / name))
    del passes[:]
    with monkeypatch.context() as patch:
        patch.setattr(Lane, "update", lambda self, step: (_ for _ in ()).throw(KilledError) if step == 4 else None)
        with pytest.raises(KilledError):
            toy_run(tmp_path / "other", changes, interface=THREE)
    del passes[:]
    toy_run(tmp_path / "other", changes, interface=THREE, auto_resume=True)
    assert again == len(passes)  # one pass for all three, from step 3, as where all were at one step


def test_lanes_can_be_added_and_finished_ones_stay(tmp_path):
    folder = toy_run(tmp_path, interface=THREE[:2])
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    with pytest.raises(ConfigError, match="already holds a finished run"):
        toy_run(tmp_path, interface=THREE)
    toy_run(tmp_path, interface=THREE, auto_resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert_like_solo(folder / FOLDERS[2], toy_run(tmp_path / "solo", interface=[THREE[2]]))
    assert yaml.safe_load((folder / "lanes.yaml").read_text()) == FOLDERS
    toy_run(tmp_path, past_exp=str(folder), override="config.runner.total_steps=15")
    assert [load_checkpoint(folder / name / "states-15.ckpt")["Step"] for name in FOLDERS] == [15] * 3


def test_a_lane_that_is_added_to_a_stopped_run_begins_at_its_beginning(tmp_path, monkeypatch):
    update = Lane.update

    def dies(self, step):
        if step == 8:
            raise KilledError
        update(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(Lane, "update", dies)
        with pytest.raises(KilledError):
            toy_run(tmp_path, interface=THREE[:2])
    folder = toy_run(tmp_path, interface=THREE, auto_resume=True)
    for text, name in zip(THREE, FOLDERS, strict=True):
        solo = toy_run(tmp_path / name, interface=[text])
        assert_same(weights(folder / name), weights(solo))
        assert read_result(folder / name / "results.json").metrics == read_result(solo / "results.json").metrics


def test_lanes_with_other_steps_do_not_go_side_by_side(tmp_path):
    folder = toy_run(tmp_path, interface=THREE[:2])
    toy_run(
        tmp_path, past_exp=str(folder / FOLDERS[0]), override="config.runner.log_step=3,,config.runner.total_steps=15"
    )
    toy_run(tmp_path, past_exp=str(folder / FOLDERS[1]), override="config.runner.total_steps=15")
    with pytest.raises(ConfigError, match="has another `runner` block than"):
        toy_run(tmp_path, past_exp=str(folder), override="config.runner.total_steps=18")


def test_a_lane_can_be_continued_alone(tmp_path):
    folder = toy_run(tmp_path / "lanes", interface=THREE)
    longer = "config.runner.total_steps=15"
    toy_run(tmp_path, past_exp=str(folder / FOLDERS[1]), override=longer)
    solo = toy_run(tmp_path / "solo", interface=[THREE[1]])
    toy_run(tmp_path, past_exp=str(solo), override=longer)
    assert_same(weights(folder / FOLDERS[1], "states-15.ckpt"), weights(solo, "states-15.ckpt"))
    assert not (folder / FOLDERS[0] / "states-15.ckpt").exists()


def test_all_lanes_are_evaluated_in_one_pass(tmp_path, passes):
    folder = toy_run(tmp_path, interface=THREE)
    del passes[:]
    run(RunArguments(mode="evaluate", past_exp=str(folder), evaluate_split="test", device="cpu"))
    assert (
        sum(passes) == 9 + 4
    )  # the utterances of test, and a second of noise for the upstream's and each lane's sizes
    for name in FOLDERS:
        (metrics,) = (folder / name / "evaluate").glob("states-12-test/metrics.json")
        assert json.loads(metrics.read_text())["utterances"] == 9


def test_a_lane_is_an_experiment(tmp_path):
    folder = toy_run(tmp_path, interface=THREE)
    assert load_experiment(folder / FOLDERS[0], device="cpu").predict([torch.randn(1600)])
    with pytest.raises(ConfigError, match="holds 3 lanes: give the folder of one of them"):
        load_experiment(folder, device="cpu")


# Lanes that die.


def break_lane(monkeypatch, interface, error, after):
    """Let the head of one interface fail in training, once ``after`` batches are done."""
    loss = Lane.loss

    def failing(self, split, wavs, output, others, **kwargs):
        if self.interface_name == interface and split == "train":
            self.done = getattr(self, "done", 0) + 1
            if self.done > after:
                raise error
        return loss(self, split, wavs, output, others, **kwargs)

    monkeypatch.setattr(Lane, "loss", failing)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "Out of GPU memory at step 6 with 1 utterance of up to 0.2 s"),
        (RuntimeError("shapes do not\nmatch"), "RuntimeError: shapes do not match"),
    ],
)
def test_a_lane_that_dies_is_stopped_and_the_others_go_on(tmp_path, monkeypatch, error, reason, caplog):
    with monkeypatch.context() as patch:
        break_lane(patch, "hconv", error, after=10)
        with pytest.raises(UserError, match=r"1 of 3 lanes failed, the others are finished: hconv-normalize=true \("):
            toy_run(tmp_path / "lanes", interface=THREE)
    folder = tmp_path / "lanes/run"
    failed = json.loads((folder / FOLDERS[1] / "failed.json").read_text())
    assert failed["step"] == 5
    assert failed["reason"].startswith(reason)
    assert not (folder / FOLDERS[1] / "results.json").exists()
    assert "hconv-normalize=true is stopped at step 5, the other lanes go on" in caplog.text
    for index in (0, 2):
        assert_like_solo(folder / FOLDERS[index], toy_run(tmp_path / str(index), interface=[THREE[index]]))
    # What was in the way is gone: the lane goes on from its checkpoint, alone.
    toy_run(tmp_path / "lanes", interface=THREE, auto_resume=True)
    assert not (folder / FOLDERS[1] / "failed.json").exists()
    assert_same(weights(folder / FOLDERS[1]), weights(toy_run(tmp_path / "solo", interface=[THREE[1]])))


def test_a_lane_that_dies_again_does_not_keep_the_others_from_going_on(tmp_path, monkeypatch):
    """It stands behind them, so it is tried first, and alone."""
    update = Lane.update

    def dies(self, step):
        if step == 8 and self.interface_name == "weighted_sum":
            raise KilledError
        update(self, step)

    with monkeypatch.context() as patch:
        break_lane(patch, "hconv", RuntimeError("broken"), after=8)
        patch.setattr(Lane, "update", dies)
        with pytest.raises(KilledError):
            toy_run(tmp_path, interface=THREE)
    with monkeypatch.context() as patch:
        break_lane(patch, "hconv", RuntimeError("broken"), after=0)
        with pytest.raises(UserError, match=r"1 of 3 lanes failed, the others are finished: hconv-normalize=true"):
            toy_run(tmp_path, interface=THREE, auto_resume=True)
    for index in (0, 2):
        solo = toy_run(tmp_path / str(index), interface=[THREE[index]])
        assert_same(weights(tmp_path / "run" / FOLDERS[index]), weights(solo))


def test_lanes_that_are_added_by_themselves_are_noted_beside_the_others(tmp_path):
    folder = toy_run(tmp_path, interface=THREE[:2])
    toy_run(tmp_path, interface=[THREE[2], "concat"], auto_resume=True)
    assert yaml.safe_load((folder / "lanes.yaml").read_text()) == [*FOLDERS, "concat"]
    toy_run(tmp_path, past_exp=str(folder), override="config.runner.total_steps=13")
    assert len(list(folder.glob("*/states-13.ckpt"))) == 4


def test_a_lane_that_fails_in_an_evaluation(tmp_path, monkeypatch):
    log_records = DownstreamExpert.log_records

    def failing(self, split, records, logger, global_step, **others):
        if split == "test" and "concat" in str(self.expdir):
            raise RuntimeError("no room for predictions")
        return log_records(self, split, records, logger, global_step, **others)

    monkeypatch.setattr(DownstreamExpert, "log_records", failing)
    with pytest.raises(UserError, match="1 of 2 lanes failed"):
        toy_run(tmp_path, interface=["weighted_sum", "concat"])
    assert (tmp_path / "run/weighted_sum/results.json").exists()
    assert json.loads((tmp_path / "run/concat/failed.json").read_text())["step"] == 4


def test_when_every_lane_has_died_the_run_ends(tmp_path, monkeypatch):
    loss = Lane.loss

    def failing(self, split, *others, **kwargs):
        if split == "train":
            raise RuntimeError(f"{self.interface_name} is broken")
        return loss(self, split, *others, **kwargs)

    monkeypatch.setattr(Lane, "loss", failing)
    with pytest.raises(UserError, match=r"Every lane has failed: .*weighted_sum is broken; concat: .*concat is broken"):
        toy_run(tmp_path, interface=["weighted_sum", "concat"])
    with pytest.raises(RuntimeError, match="weighted_sum is broken"):
        toy_run(tmp_path / "solo", interface=["weighted_sum"])


def test_gradients_that_are_never_finite_end_a_lane(tmp_path, monkeypatch):
    loss = Lane.loss

    def broken(self, split, *others, **kwargs):
        value = loss(self, split, *others, **kwargs)
        return value * float("nan") if split == "train" and self.interface_name == "concat" else value

    monkeypatch.setattr(Lane, "loss", broken)
    changes = {"runner": {"total_steps": PATIENCE + 10, "eval_step": 100, "save_step": 100}}
    with pytest.raises(
        UserError, match=f"not finite for {PATIENCE} updates in a row, the last one at step {PATIENCE}:"
    ):
        toy_run(tmp_path, changes, interface=["concat"])
    with pytest.raises(UserError, match="1 of 2 lanes failed"):
        toy_run(tmp_path / "lanes", changes, interface=["weighted_sum", "concat"])
    assert read_result(tmp_path / "lanes/run/weighted_sum/results.json").metrics["test"]["step"] <= PATIENCE + 10
    assert json.loads((tmp_path / "lanes/run/concat/failed.json").read_text())["step"] == PATIENCE


def test_now_and_then_a_gradient_that_is_not_finite_ends_nothing(tmp_path, monkeypatch):
    calls = []
    loss = Lane.loss

    def now_and_then(self, split, *others, **kwargs):
        calls.append(split)
        value = loss(self, split, *others, **kwargs)
        return value * float("nan") if split == "train" and len(calls) % PATIENCE else value

    monkeypatch.setattr(Lane, "loss", now_and_then)
    changes = {
        "runner": {"total_steps": 2 * PATIENCE, "eval_step": 1000, "save_step": 1000, "gradient_accumulate_steps": 1}
    }
    folder = toy_run(tmp_path, changes)
    states = load_checkpoint(folder / f"states-{2 * PATIENCE}.ckpt")
    assert states["SkippedUpdates"] == 2 * PATIENCE - 2
    assert all(value.isfinite().all() for _, value in flat(states["Downstream"]))


# What a user can get wrong.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upstream_trainable": True}, r"`-f` fine-tunes the upstream, and each lane would pull it another way"),
        ({"interface": ["hconv", "hconv"]}, r"Two lanes are the same: hconv\."),
        ({"seeds": [1, 1]}, r"Two lanes are the same: .*seed=1"),
        ({"lr": [0.1, -1.0]}, r"`--lr` must be above 0, but is -1\.0"),
        ({"seeds": [1, -1]}, r"must be from 0 to 2\*\*32 - 1, but one is -1"),
        ({"mode": "evaluate"}, r"`-m evaluate` takes the lanes of a run: name its folder with `-e`"),
        ({"interface": ["hconv", "hconv:kernel=3"]}, "kernel"),
        ({"interface": ["hconv", "hcon"]}, "hcon"),
    ],
)
def test_lanes_that_cannot_be(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message):
        toy_run(tmp_path, **{"interface": ["weighted_sum", "hconv"], **arguments})
    assert not list((tmp_path / "run").glob("*/results.json"))


def test_a_folder_is_of_one_kind(tmp_path):
    toy_run(tmp_path / "solo")
    with pytest.raises(ConfigError, match="holds a run of one interface: choose another"):
        toy_run(tmp_path / "solo", interface=["weighted_sum", "concat"], auto_resume=True)
    folder = toy_run(tmp_path / "lanes", interface=["weighted_sum", "concat"])
    with pytest.raises(ConfigError, match=f"{folder} holds several lanes: continue them with `-e"):
        toy_run(tmp_path / "lanes", interface=["concat"], auto_resume=True)
