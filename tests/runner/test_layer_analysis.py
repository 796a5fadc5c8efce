"""The score without each layer, against a plain loop over utterances, and that nothing else is touched."""

import copy
import logging
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.testing import assert_close

from downstream_tasks.score import Score
from s3prl_interfaces.cli import run_downstream
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.results.layers import read_layers, write_layers
from s3prl_interfaces.runner import RunArguments, outcome
from s3prl_interfaces.runner.evaluation import evaluate
from s3prl_interfaces.runner.experiment import build
from s3prl_interfaces.runner.layer_analysis import analyse_layers, selecting_split, without_layer
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.plan import make_plans
from tests.runner import toys
from tests.runner.toys import toy_run

CPU = torch.device("cpu")
LINEAR = [{"name": "weighted_sum"}, {"name": "concat"}, {"name": "pca_concat"}]
OTHERS = [
    {"name": "weighted_sum", "normalize": True},
    {"name": "hconv"},
    {"name": "cls_pooling", "feedforward_dim": 8},
]
ONE_LAYER = [({"name": "last_layer"}, 2), ({"name": "single_layer", "layer": 1}, 1)]


def shown(block):
    return "-".join(map(str, block.values())) if isinstance(block, dict) else None


def load(*checkpoints):
    """Upstream and lanes as ``s3prl-interfaces layers`` would have them."""
    plans = [make_plans(RunArguments(mode="evaluate", past_exp=str(path), device="cpu"))[0] for path in checkpoints]
    experiment = build(plans)
    return experiment.upstream, experiment.lanes


def analyse(upstream, lanes, split="dev", mean_over="utterance"):
    return analyse_layers(upstream, lanes, split, seed=1337, device=CPU, mean_over=mean_over)


def evaluated(upstream, lane, folder, split="dev"):
    """What ``evaluate`` says of a lane; its predictions go to ``folder``."""
    folder.mkdir()
    lane.head.expdir, lane.logger = folder, MetricLogger(str(folder))
    (done,) = evaluate(upstream, [lane], split, steps=[0], seed=1337, device=CPU)
    lane.logger.close()
    return done.metrics


@pytest.fixture
def by_loss(monkeypatch):
    """Let the toy task be scored by its loss, which tells more than the accuracy of seven utterances."""
    monkeypatch.setattr(toys.DownstreamExpert, "score", Score("loss", "test", higher_is_better=False), raising=False)


def plain_loss(upstream, lane, changed=None, means=None):
    """The loss of dev, each utterance by itself, one of its layers replaced by its mean over time."""
    losses = []
    for wavs, labels, _ in lane.head.get_dataloader("dev"):
        logits = []
        for wav in wavs:
            states = list(upstream([wav])["hidden_states"])
            if changed is not None:
                frames = list(states[changed][0])
                mean = sum(frames) / len(frames) if means is None else means[changed]
                states[changed] = torch.stack([mean] * len(frames))[None]
            logits.append(lane.head.linear(lane.featurizer.interface(states)[0].mean(0)))
        losses.append(nn.functional.cross_entropy(torch.stack(logits), labels).item())
    return sum(losses) / len(losses)


def means_of_dev(upstream, lane):
    """The mean over the frames of all utterances, for each layer."""
    wavs = [wav for batch in lane.head.get_dataloader("dev") for wav in batch[0]]
    states = [upstream([wav])["hidden_states"] for wav in wavs]
    return [torch.cat([layers[index][0] for layers in states]).mean(0) for index in range(3)]


@pytest.mark.parametrize(
    ("interface", "mean_over"),
    [*((block, "utterance") for block in OTHERS), *((block, "split") for block in [*LINEAR, *OTHERS])],
    ids=shown,
)
def test_against_a_plain_loop(tmp_path, by_loss, interface, mean_over):
    folder = toy_run(tmp_path, {"interface": interface})
    upstream, (lane,) = load(folder / "dev-best.ckpt")
    (result,) = analyse(upstream, [lane], mean_over=mean_over)
    assert (result.split, result.metric, result.higher_is_better) == ("dev", "loss", False)
    assert (result.checkpoint, result.step) == ("dev-best.ckpt", lane.start.states["Step"])
    assert result.mean_over == mean_over

    for module in lane.modules.values():
        module.eval()
    with torch.no_grad():
        means = means_of_dev(upstream, lane) if mean_over == "split" else None
        expected = [plain_loss(upstream, lane, changed, means) for changed in (None, 0, 1, 2)]
    assert_close(torch.tensor([result.score, *result.without]), torch.tensor(expected), rtol=1e-5, atol=1e-7)
    assert len({round(value, 4) for value in expected}) == 4  # else nothing was compared
    assert result.score == evaluated(upstream, lane, tmp_path / "again")["loss"]


@pytest.mark.parametrize("interface", LINEAR, ids=shown)
def test_what_the_mean_over_an_utterance_cannot_show(tmp_path, by_loss, interface):
    """The toy head takes the mean over time, as those of IC, SID, ER and KS do: a linear interface loses nothing."""
    (result,) = analyse(*load(toy_run(tmp_path, {"interface": interface}) / "dev-best.ckpt"))
    assert_close(torch.tensor(result.without), torch.full((3,), result.score), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mean_over", ["utterance", "split"])
@pytest.mark.parametrize(("interface", "used"), ONE_LAYER)
def test_one_layer_loses_nothing_without_the_others(tmp_path, by_loss, interface, used, mean_over):
    interface = {**interface, "normalize": True}  # not linear
    upstream, lanes = load(toy_run(tmp_path, {"interface": interface}) / "dev-best.ckpt")
    (result,) = analyse(upstream, lanes, mean_over=mean_over)
    assert [value == result.score for value in result.without] == [layer != used for layer in range(3)]
    assert abs(result.without[used] - result.score) > 1e-4
    assert result.weights is None


def test_a_task_without_a_score(tmp_path):
    """S3PRL's own: the first of its metrics that is known to be one."""
    upstream, (lane,) = load(toy_run(tmp_path) / "dev-best.ckpt")
    (result,) = analyse(upstream, [lane])
    assert (result.metric, result.higher_is_better) == ("acc", True)
    assert result.score == evaluated(upstream, lane, tmp_path / "again")["acc"]


def test_a_task_without_a_score_whose_metric_is_an_error(tmp_path, monkeypatch):
    upstream, lanes = load(toy_run(tmp_path) / "dev-best.ckpt")
    monkeypatch.setattr(outcome, "KNOWN_METRICS", {"wer": False, "loss": False})
    (result,) = analyse(upstream, lanes)
    assert (result.metric, result.higher_is_better) == ("loss", False)


def test_a_task_without_a_known_metric(tmp_path, monkeypatch):
    upstream, lanes = load(toy_run(tmp_path) / "dev-best.ckpt")
    monkeypatch.setattr(toys.DownstreamExpert, "score", Score("f1", "test", higher_is_better=True), raising=False)
    with pytest.raises(ConfigError, match="Split `dev` has no score: the task's is f1, and it logs acc, loss there"):
        analyse(upstream, lanes)


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_leaves_everything_as_it_was(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    folder = toy_run(tmp_path)
    upstream, (lane,) = load(folder / "dev-best.ckpt")
    lane.head.best_score.fill_(-1.0)  # every score would be the best
    lane.head.train()
    lane.head.dropout.eval()
    modules = [upstream, *lane.modules.values()]
    modes = [part.training for module in modules for part in module.modules()]
    states = copy.deepcopy([module.state_dict() for module in modules])
    buffer, attributes = lane.head.best_score, dict(vars(lane.head))
    files, random = snapshot(tmp_path), torch.get_rng_state()

    analyse(upstream, [lane])

    assert snapshot(tmp_path) == files
    assert torch.equal(torch.get_rng_state(), random)
    assert [part.training for module in modules for part in module.modules()] == modes
    assert_close([module.state_dict() for module in modules], states, rtol=0, atol=0)
    assert lane.head.best_score is buffer
    assert dict(vars(lane.head)) == attributes
    assert list(temporary.iterdir()) == []
    assert torch.is_grad_enabled()


def test_a_failure_leaves_everything_as_it_was(tmp_path, monkeypatch):
    folder = toy_run(tmp_path)
    upstream, (lane,) = load(folder / "dev-best.ckpt")
    lane.head.train()
    files, random = snapshot(tmp_path), torch.get_rng_state()
    monkeypatch.setattr(toys.DownstreamExpert, "log_records", lambda *_, **__: 1 / 0)
    level = logging.root.manager.disable
    with pytest.raises(ZeroDivisionError):
        analyse(upstream, [lane])
    assert snapshot(tmp_path) == files
    assert torch.equal(torch.get_rng_state(), random)
    assert lane.head.training
    assert logging.root.manager.disable == level


def test_every_layer_is_scored_by_a_head_of_its_own(tmp_path, by_loss, monkeypatch):
    """A head that keeps what it must not, in attributes and in buffers: no score depends on another."""
    upstream, (lane,) = load(toy_run(tmp_path) / "dev-best.ckpt")
    plain = analyse(upstream, [lane])[0]
    log_records = toys.DownstreamExpert.log_records

    def better_each_time(self, split, records, logger, global_step, **kwargs):
        self.called = getattr(self, "called", 0) + 1
        self.best_score += 1
        assert self.called == 1
        assert self.best_score == lane.head.best_score + 1
        log_records(self, split, records, logger, global_step, **kwargs)

    monkeypatch.setattr(toys.DownstreamExpert, "log_records", better_each_time)
    assert analyse(upstream, [lane]) == [plain]


def test_a_head_that_draws_in_evaluation_draws_the_same_for_every_layer(tmp_path, by_loss, monkeypatch):
    forward = toys.DownstreamExpert.forward

    def noisy(self, split, features, *others, **kwargs):
        return forward(self, split, [feature + torch.randn(6) for feature in features], *others, **kwargs)

    checkpoint = toy_run(tmp_path, {"interface": {"name": "last_layer"}}) / "dev-best.ckpt"
    upstream, (lane,) = load(checkpoint)
    quiet = analyse(upstream, [lane])[0].score
    monkeypatch.setattr(toys.DownstreamExpert, "forward", noisy)
    torch.manual_seed(0)  # not where the analysis begins
    (result,) = analyse(upstream, [lane])
    assert result.score != quiet
    assert result.without[:2] == (result.score, result.score)
    assert result.score == evaluated(upstream, lane, tmp_path / "again")["loss"]


def test_paths_of_s3prls_heads(tmp_path, monkeypatch, capsys, caplog):
    """They keep strings, and others than ``expdir``, and they print."""
    log_records = toys.DownstreamExpert.log_records

    def writes(self, split, records, logger, global_step, **kwargs):
        with Path(self.logging).open("a") as file:
            file.write("new best\n")
        print("said")  # noqa: T201
        logging.warning("warned")
        assert self.tag == "run"
        assert self.neighbour == f"{folder}-other"
        return log_records(self, split, records, logger, global_step, **kwargs)

    folder = toy_run(tmp_path)
    upstream, (lane,) = load(folder / "dev-best.ckpt")
    lane.head.expdir = lane.folder
    lane.folder = folder
    lane.head.logging, lane.head.tag, lane.head.neighbour = f"{folder}/log.log", "run", f"{folder}-other"
    lane.head.expdir = folder
    monkeypatch.setattr(toys.DownstreamExpert, "log_records", writes)
    files = snapshot(tmp_path)
    capsys.readouterr()
    caplog.clear()
    analyse(upstream, [lane])
    assert snapshot(tmp_path) == files
    assert capsys.readouterr().out == "said\n"
    assert [record.message for record in caplog.records] == ["warned"]


def test_several_lanes_in_one_pass(tmp_path, by_loss):
    names = ["weighted_sum", "last_layer", "cls_pooling", "hconv"]
    folder = toy_run(tmp_path, interface=names)
    checkpoints = [folder / name / "dev-best.ckpt" for name in names]
    alone = [analyse(*load(checkpoint))[0] for checkpoint in checkpoints]

    upstream, lanes = load(*checkpoints)
    calls = []
    upstream.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    together = analyse(upstream, lanes)
    assert together == alone
    assert len(calls) == len(lanes[0].head.get_dataloader("dev")) == 2
    assert not any(calls)
    assert len({result.without for result in together}) == 4

    calls.clear()
    assert analyse(upstream, lanes, mean_over="split") == [
        analyse(*load(checkpoint), mean_over="split")[0] for checkpoint in checkpoints
    ]
    assert len(calls) == 4


def test_weights(tmp_path, by_loss):
    names = ["weighted_sum", "grouped_weighted_sum", "cls_pooling", "concat"]
    folder = toy_run(tmp_path, interface=names)
    upstream, lanes = load(*(folder / name / "dev-best.ckpt" for name in names))
    summed, grouped, attention, none = (result.weights for result in analyse(upstream, lanes))
    assert none is None
    softmax = lanes[0].featurizer.interface.weights.softmax(0)
    assert (summed.what, summed.rows) == ("softmax weights", ("all layers",))
    assert_close(torch.tensor(summed.values), softmax[None].detach())
    assert grouped.rows == ("group 1", "group 2")
    assert [[value > 0 for value in row] for row in grouped.values] == [[True, True, False], [False, False, True]]

    # The mean over all frames of the split, not over its batches.
    wavs = [wav for batch in lanes[0].head.get_dataloader("dev") for wav in batch[0]]
    one_batch = lanes[2].featurizer.interface.layer_weights(
        upstream(wavs)["hidden_states"], [len(wav) // 320 for wav in wavs]
    )
    assert attention.what == "attention of CLS"
    assert_close(torch.tensor(attention.values), one_batch.values, rtol=1e-5, atol=1e-6)


def test_an_upstream_of_one_layer_is_left_out(tmp_path, by_loss, caplog):
    caplog.set_level("INFO")
    single = toy_run(tmp_path / "single", upstream_layer_selection=1) / "dev-best.ckpt"
    several = toy_run(tmp_path / "several") / "dev-best.ckpt"
    upstream, lanes = load(single)
    assert analyse(upstream, lanes) == [None]
    assert "single_layer is left out: the upstream gives one hidden state" in caplog.text
    _, (other,) = load(several)
    assert analyse(upstream, [*lanes, other]) == [None, *analyse(upstream, [other])]


def test_an_untrained_lane(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toys.CONFIG))
    arguments = {"upstream": "tests.runner.toys:build", "downstream": toys.TASK, "config": [str(path)]}
    plans = make_plans(RunArguments(mode="evaluate", device="cpu", expdir=str(tmp_path), **arguments))
    experiment = build(plans)
    with pytest.raises(ConfigError, match="weighted_sum is untrained"):
        analyse(experiment.upstream, experiment.lanes)


def test_an_unknown_split(tmp_path):
    upstream, lanes = load(toy_run(tmp_path) / "dev-best.ckpt")
    with pytest.raises(ConfigError, match="no split `valid`"):
        analyse(upstream, lanes, "valid")


def test_selecting_split(tmp_path, monkeypatch):
    folder = toy_run(tmp_path, {"runner": {**toys.CONFIG["runner"], "eval_dataloaders": ["test", "dev"]}})
    (folder / "dev-clean-best.ckpt").write_bytes((folder / "dev-best.ckpt").read_bytes())
    for name, split in (("dev-best", "dev"), ("dev-clean-best", "dev-clean"), ("states-12", "test")):
        _, (lane,) = load(folder / f"{name}.ckpt")
        assert selecting_split(lane) == split
    monkeypatch.setattr(toys.DownstreamExpert, "selects_on", "dev", raising=False)
    assert selecting_split(lane) == "dev"


def test_without_layer():
    states = list(torch.randn(3, 4, 5, 2).unbind(0))
    before = copy.deepcopy(states)
    states[1][1, 3:] = float("nan")  # whatever padding holds
    changed = without_layer(states, 1, torch.tensor([5, 3, 1, 0]))
    assert changed[0] is states[0]
    assert changed[2] is states[2]
    for row, length in enumerate([5, 3, 1, 0]):
        mean = before[1][row, :length].sum(0) / max(length, 1)
        assert_close(changed[1][row], mean.expand(5, 2))
    assert torch.equal(states[0], before[0])
    assert torch.equal(states[1].nan_to_num(7.0)[0], before[1][0])


def test_without_layer_in_half_precision():
    state = torch.full((1, 3000, 1), 40.0, dtype=torch.float16)  # the sum exceeds float16's largest number
    (changed,) = without_layer([state], 0, torch.tensor([3000]))
    assert changed.dtype == torch.float16
    assert (changed == 40).all()


@pytest.fixture(scope="module")
def ic_run(tmp_path_factory):
    """A short run of IC on a mini corpus."""
    root = tmp_path_factory.mktemp("ic")
    (corpus,) = make_mini_superb(root, corpora=["fluent_speech_commands"], scale=0.03)
    settings = {
        "runner": {"total_steps": 6, "eval_step": 3, "save_step": 6, "log_step": 1},
        "downstream_expert": {"datarc": {"file_path": str(corpus), "num_workers": 0}},
    }
    (root / "tiny.yaml").write_text(yaml.safe_dump(settings))
    flags = ["-m", "train", "-d", "ic", "-u", "tests.runner.toys:build", "-p", str(root / "run"), "--device", "cpu"]
    assert run_downstream([*flags, "--interface", "cls_pooling", "-c", "configs/ic.yaml", str(root / "tiny.yaml")]) == 0
    return root / "run"


class Without(nn.Module):
    """An upstream one of whose layers says the same all through an utterance."""

    def __init__(self, upstream, layer):
        super().__init__()
        self.upstream, self.layer = upstream, layer

    def forward(self, wavs):
        states = self.upstream(wavs)["hidden_states"]
        for row, wav in zip(states[self.layer], wavs, strict=True):
            frames = min(len(row), round(len(wav) / 320))
            row[:] = row[:frames].mean(0)
        return {"hidden_states": states}


def test_a_real_task(ic_run, tmp_path):
    (checkpoint,) = [*ic_run.glob("dev-best.ckpt")] or [ic_run / "states-6.ckpt"]
    upstream, (lane,) = load(checkpoint)
    files = snapshot(ic_run)
    (result,) = analyse(upstream, [lane], selecting_split(lane))
    assert snapshot(ic_run) == files

    write_layers(tmp_path, result)
    assert read_layers(tmp_path) == result
    assert (result.split, result.metric, result.higher_is_better) == ("dev", "acc", True)
    assert (len(result.without), result.weights.rows) == (3, ("head 1", "head 2"))

    lane.head.score = Score("intent_loss", "test", higher_is_better=False)  # tells more of eight utterances
    (result,) = analyse(upstream, [lane])
    modules = [upstream, *(Without(upstream, layer) for layer in range(3))]
    losses = [evaluated(one, lane, tmp_path / str(place))["intent_loss"] for place, one in enumerate(modules)]
    assert result.score == losses[0]
    assert_close(torch.tensor(result.without), torch.tensor(losses[1:]), rtol=1e-5, atol=1e-6)
    assert len(set(losses)) == 4
