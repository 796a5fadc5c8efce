"""What a run leaves behind, and that stopping, evaluating and accumulating change nothing that they must not."""

import json
import logging

import pytest
import soundfile
import torch

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.featurizer import InterfaceFeaturizer
from s3prl_interfaces.results import read_result
from s3prl_interfaces.runner import RunArguments, experiment, run
from s3prl_interfaces.runner.checkpoint import load_checkpoint, step_checkpoints
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.randomness import Stream, capture, seed_everything
from tests.runner.toys import DownstreamExpert, Upstream, toy_run


def weights(folder, name="states-12.ckpt"):
    states = load_checkpoint(folder / name)
    return {
        f"{part}.{key}": value
        for part in ("Featurizer", "Downstream", "Optimizer")
        for key, value in flat(states[part])
    }


def flat(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert len(one) > 5
    for key in one:
        assert torch.equal(one[key], other[key]), key


class StoppedError(Exception):
    """Stands for a kill."""


def stop_at(monkeypatch, step):
    """Let the run die in the middle of the update after ``step``."""
    update = Lane.update

    def dies(self, at):
        if at == step + 1:
            raise StoppedError
        update(self, at)

    monkeypatch.setattr(Lane, "update", dies)


def test_leaves_what_the_design_says(tmp_path):
    folder = toy_run(tmp_path, interface=["hconv"], seed=7)
    names = {path.name for path in folder.iterdir()}
    assert {"config.yaml", "args.yaml", "log.txt", "dev-best.ckpt", "states-12.ckpt", "results.json"} <= names
    assert {"dev_predict.txt", "test_predict.txt"} <= names
    assert any(name.startswith("events.out") for name in names)
    assert [path.name for path in step_checkpoints(folder)] == [f"states-{step}.ckpt" for step in (3, 6, 9, 12)]
    result = read_result(folder / "results.json")
    best = torch.load(folder / "dev-best.ckpt", weights_only=True)
    assert result.interface == "hconv"
    assert result.seed == 7
    assert result.counts == {"dev": 7, "test": 9}
    assert result.metrics["test"]["step"] == best["Step"]
    assert result.primary.value == result.metrics["test"]["acc"]
    # (3, 6 channels, kernel 5) -> L: 3 -> 1, 6 channels
    assert result.parameters["interface"] == 6 * 6 * 5 + 6
    assert result.parameters["downstream"] == 6 * 2 + 2
    # One place of the kernel over three layers, two of whose five weights see padding: 50 frames a second.
    assert result.macs_per_second == 50 * 3 * 6 * 6
    chosen = result.selection
    assert (chosen.name, chosen.split, chosen.value) == ("acc", "dev", result.metrics["dev"]["acc"])
    assert result.learning_rate == 0.05
    correct = [line.split() for line in (folder / "test_predict.txt").read_text().splitlines()]
    assert sorted(name for name, _ in correct) == sorted(f"u{number}" for number in range(200, 209))
    accuracy = sum(int(name[1:]) % 2 == int(label) for name, label in correct) / 9
    assert result.primary.value == pytest.approx(accuracy, abs=1e-6)


def test_the_scored_weights_are_the_best_on_dev(tmp_path):
    folder = toy_run(tmp_path)
    best = load_checkpoint(folder / "dev-best.ckpt")
    run(RunArguments(mode="evaluate", past_exp=str(folder / "dev-best.ckpt"), evaluate_split="test", device="cpu"))
    (metrics,) = (folder / "evaluate").glob("dev-best-test/metrics.json")
    content = json.loads(metrics.read_text())
    result = read_result(folder / "results.json")
    assert content["step"] == best["Step"]
    assert content["metrics"]["acc"] == result.primary.value
    # The loss tells one step's weights from another's even where the accuracies are equal.
    assert best["Step"] < 12
    assert content["metrics"]["loss"] == result.metrics["test"]["loss"]
    assert content["utterances"] == 9


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [3, 6, 9])  # after 2/3 of an epoch, at its end, and after 2/3 of a later one
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(tmp_path, monkeypatch, stop, workers):
    changes = {"runner": {"save_step": 2}, "downstream_expert": {"num_workers": workers}}
    whole = toy_run(tmp_path / "whole", changes, interface=["hconv"])
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(StoppedError):
            toy_run(tmp_path / "stopped", changes, interface=["hconv"])
    assert not (tmp_path / "stopped/run/results.json").exists()
    stopped = toy_run(tmp_path / "stopped", changes, interface=["hconv"], auto_resume=True)
    assert_same(weights(whole), weights(stopped))
    one, other = read_result(whole / "results.json"), read_result(stopped / "results.json")
    assert one.metrics == other.metrics
    losses = (stopped / "losses.txt").read_text().splitlines()
    kept = (whole / "losses.txt").read_text().splitlines()
    assert losses[-6:] == kept[-6:]


def test_how_often_one_evaluates_changes_nothing_in_training(tmp_path):
    often = toy_run(tmp_path / "often", {"runner": {"eval_step": 1}})
    seldom = toy_run(tmp_path / "seldom", {"runner": {"eval_step": 12}})
    assert (often / "losses.txt").read_text() == (seldom / "losses.txt").read_text()


def test_runs_repeat_and_seeds_differ(tmp_path):
    one, same, other = (toy_run(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert_same(weights(one), weights(same))
    assert not torch.equal(weights(one)["Downstream.linear.weight"], weights(other)["Downstream.linear.weight"])


@pytest.mark.parametrize("clipping", [0.05, 1000.0])
def test_an_update_is_the_plain_formula(tmp_path, clipping):
    """SGD over two accumulated micro-batches with clipping, written out."""
    changes = {
        "runner": {"total_steps": 1, "gradient_clipping": clipping, "save_step": 1},
        "optimizer": {"name": "TorchOptim", "torch_optim_name": "SGD", "lr": 0.5},
        "scheduler": {"name": "constant_decay_schedule_with_warmup", "num_warmup_steps": 0},
    }
    folder = toy_run(tmp_path, changes)
    upstream = Upstream()
    seed_everything(1337)
    featurizer = InterfaceFeaturizer(upstream, upstream_device="cpu")
    head = DownstreamExpert(featurizer.output_dim, {}, tmp_path)
    dropout = Stream(capture())
    seed_everything(1337)  # the data's own random numbers
    loader = iter(head.get_dataloader("train"))
    for _ in range(2):
        wavs, labels, names = next(loader)
        with torch.no_grad():
            output = upstream(wavs)
        records = {k: [] for k in ("loss", "acc", "names", "predict")}
        with dropout.use():
            loss = head("train", featurizer(wavs, output), labels, names, records)
        (loss / 2).backward()
    parameters = [*featurizer.parameters(), *head.parameters()]
    norm = torch.sqrt(sum((parameter.grad**2).sum() for parameter in parameters))
    assert 0.05 < norm < 1000
    expected = head.linear.weight - 0.5 * head.linear.weight.grad * min(1.0, clipping / norm)
    actual = load_checkpoint(folder / "states-1.ckpt")["Downstream"]["linear.weight"]
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_finished_runs_are_neither_repeated_nor_overwritten(tmp_path, caplog):
    folder = toy_run(tmp_path)
    before = (folder / "results.json").read_bytes(), (folder / "states-12.ckpt").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="already holds a finished run"):
        toy_run(tmp_path)
    with caplog.at_level(logging.INFO):
        toy_run(tmp_path, auto_resume=True)
    assert "nothing left to do" in caplog.text
    assert before == ((folder / "results.json").read_bytes(), (folder / "states-12.ckpt").stat().st_mtime_ns)


def test_the_same_run_is_continued_whatever_flags_say_it_again(tmp_path, caplog):
    folder = toy_run(tmp_path, interface=["hconv:kernel_size=3"], normalize="on", seeds=[5], lr=[0.1])
    with caplog.at_level(logging.INFO):
        again = {"normalize": "on", "seeds": [5], "lr": [0.1], "auto_resume": True}
        toy_run(tmp_path, interface=["hconv:kernel_size=3"], **again)
        toy_run(tmp_path, interface=["hconv"], **again)
        run(RunArguments(mode="train", past_exp=str(folder), device="cpu"))
    assert caplog.text.count(f"{folder} holds the finished run already") == 3


def test_a_finished_run_can_be_made_longer(tmp_path):
    folder = toy_run(tmp_path)
    toy_run(tmp_path, past_exp=str(folder), override="config.runner.total_steps=15")
    assert load_checkpoint(folder / "states-15.ckpt")["Step"] == 15


@pytest.mark.parametrize(
    ("flag", "asked"),
    [
        ("interface", ["hconv"]),
        ("interface", ["weighted_sum:normalize=true"]),
        ("normalize", "both"),
        ("normalize", "on"),
        ("seeds", [3]),
        ("seeds", [1337, 3]),
        ("lr", [0.5]),
        ("upstream", "fbank"),
        ("upstream_unpadded", True),
        ("downstream", "example"),
    ],
)
def test_another_run_is_not_continued_by_mistake(tmp_path, flag, asked):
    folder = toy_run(tmp_path)
    before = sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())
    with pytest.raises(ConfigError, match=r"states-12\.ckpt is of a run with .*or start another run"):
        toy_run(tmp_path, auto_resume=True, **{flag: asked})
    assert before == sorted((path.name, path.stat().st_mtime_ns) for path in folder.iterdir())


def test_results_are_written_even_if_the_run_died_before_them(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "finish", lambda *_: (_ for _ in ()).throw(StoppedError))
        with pytest.raises(StoppedError):
            toy_run(tmp_path)
    assert (toy_run(tmp_path, auto_resume=True) / "results.json").exists()


def test_gradients_that_are_not_finite_are_skipped(tmp_path, caplog):
    folder = toy_run(tmp_path, {"downstream_expert": {"nan_at": 5}})
    assert "this update is skipped" in caplog.text
    states = load_checkpoint(folder / "states-12.ckpt")
    assert states["SkippedUpdates"] == 1
    assert all(value.isfinite().all() for _, value in flat(states["Downstream"]))


@pytest.mark.parametrize("key", ["bf16", "fp16"])
def test_mixed_precision_trains(tmp_path, key):
    exact = toy_run(tmp_path / "exact")
    folder = toy_run(tmp_path / "mixed", {"runner": {key: True}})
    one, other = weights(exact), weights(folder)
    assert not torch.equal(one["Downstream.linear.weight"], other["Downstream.linear.weight"])
    torch.testing.assert_close(one["Downstream.linear.weight"], other["Downstream.linear.weight"], atol=0.1, rtol=0.1)


def test_max_keep(tmp_path):
    folder = toy_run(tmp_path, {"runner": {"max_keep": 2}})
    assert [path.name for path in step_checkpoints(folder)] == ["states-9.ckpt", "states-12.ckpt"]


def test_evaluate_ratio_limits_training_evaluations_only(tmp_path):
    folder = toy_run(tmp_path, {"runner": {"evaluate_ratio": 0.5}})
    assert read_result(folder / "results.json").counts == {"dev": 7, "test": 9}


def test_fine_tuning_trains_and_keeps_the_upstream(tmp_path):
    folder = toy_run(tmp_path, upstream_trainable=True)
    stored = load_checkpoint(folder / "states-12.ckpt")["Upstream"]["weight"]
    assert not torch.equal(stored, Upstream().weight)
    assert read_result(folder / "results.json").upstream.endswith("(fine-tuned)")
    run(RunArguments(mode="evaluate", past_exp=str(folder / "dev-best.ckpt"), device="cpu"))
    content = json.loads((folder / "evaluate/dev-best-test/metrics.json").read_text())
    assert content["metrics"]["acc"] == read_result(folder / "results.json").primary.value


def test_a_frozen_upstream_stays(tmp_path):
    folder = toy_run(tmp_path)
    assert "Upstream" not in load_checkpoint(folder / "states-12.ckpt")


def test_init_ckpt_takes_the_weights_alone(tmp_path):
    folder = toy_run(tmp_path / "first")
    best = folder / "dev-best.ckpt"
    second = toy_run(tmp_path / "second", {"optimizer": {"lr": 0.0}}, init_ckpt=str(best))
    states = load_checkpoint(second / "states-12.ckpt")
    assert torch.equal(states["Downstream"]["linear.weight"], load_checkpoint(best)["Downstream"]["linear.weight"])


def test_pca_is_fitted_once_before_training(tmp_path):
    folder = toy_run(tmp_path, {"downstream_expert": {"crop": False}}, interface=["pca_concat"])
    first = load_checkpoint(folder / "states-3.ckpt")["Featurizer"]
    last = load_checkpoint(folder / "states-12.ckpt")["Featurizer"]
    assert bool(first["interface.fitted"])
    assert torch.equal(first["interface.components"], last["interface.components"])
    # By hand: every training utterance alone, so without padding.
    upstream, head = Upstream(), DownstreamExpert(6, {}, tmp_path)
    with torch.no_grad():
        states = [upstream([head.item(number)[0]])["hidden_states"] for number in range(22)]
    for layer in range(3):
        frames = torch.cat([state[layer][0] for state in states])
        torch.testing.assert_close(first["interface.mean"][layer], frames.mean(0), atol=1e-5, rtol=0)


def test_inference(tmp_path, caplog):
    folder = toy_run(tmp_path)
    (tmp_path / "audio").mkdir()
    for name in ("a", "b"):
        soundfile.write(tmp_path / "audio" / f"{name}.wav", torch.randn(3200).numpy() / 10, 16000)
    with caplog.at_level(logging.INFO):
        run(
            RunArguments(
                mode="inference",
                past_exp=str(folder / "dev-best.ckpt"),
                evaluate_split=str(tmp_path / "audio"),
                device="cpu",
            )
        )
    assert "a.wav: {'class':" in caplog.text
    assert "b.wav: {'class':" in caplog.text


def test_s3prls_own_task_runs(tmp_path):
    """`-d example` with S3PRL's own expert; its tasks say nothing of a score, so acc is taken."""
    config = tmp_path / "example.yaml"
    config.write_text(
        "runner: {total_steps: 2, gradient_accumulate_steps: 1, log_step: 1, eval_step: 2, save_step: 2,"
        " eval_dataloaders: [dev], evaluate_ratio: 0.02}\n"
        "optimizer: {name: AdamW, lr: 2.0e-4}\n"
        "downstream_expert:\n"
        "  datarc: {num_workers: 0, train_batch_size: 2, eval_batch_size: 50}\n"
        "  modelrc: {input_dim: 8}\n"
    )
    run(
        RunArguments(
            mode="train",
            upstream="tests.runner.toys:build",
            downstream="example",
            config=[str(config)],
            expdir=str(tmp_path / "run"),
            interface=["hconv"],
            device="cpu",
        )
    )
    result = read_result(tmp_path / "run/results.json")
    assert result.task == "example"
    assert result.counts == {"dev": 200, "test": 200}
    assert result.primary.name == "acc"


def test_each_epoch_is_dealt_anew_and_counted(tmp_path, monkeypatch):
    """22 utterances in batches of 4, two to an update: 12 updates are 4 epochs. A continued run counts on."""
    epochs, names = [], []
    get_dataloader, forward = DownstreamExpert.get_dataloader, DownstreamExpert.forward

    def counts(self, split, epoch=None):
        if split == "train" and epoch is not None:
            epochs.append(epoch)
        return get_dataloader(self, split)

    def listens(self, split, features, labels, batch_names, records, **others):
        if self.training:
            names.extend(batch_names)
        return forward(self, split, features, labels, batch_names, records, **others)

    monkeypatch.setattr(DownstreamExpert, "get_dataloader", counts)
    monkeypatch.setattr(DownstreamExpert, "forward", listens)
    toy_run(tmp_path / "whole")
    assert epochs == [0, 1, 2, 3]
    orders = [tuple(names[start : start + 22]) for start in range(0, 88, 22)]
    assert len(names) == 88
    assert all(len(set(order)) == 22 for order in orders)
    assert len(set(orders)) == 4

    with monkeypatch.context() as stopped:
        stop_at(stopped, 7)  # in the third epoch; the newest checkpoint is of update 6, where it began
        with pytest.raises(StoppedError):
            toy_run(tmp_path / "stopped")
    epochs.clear(), names.clear()
    toy_run(tmp_path / "stopped", auto_resume=True)
    assert epochs[-2:] == [2, 3]
    assert [tuple(names[-44:-22]), tuple(names[-22:])] == orders[2:]
