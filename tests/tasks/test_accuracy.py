"""SUPERB's accuracy is over all utterances; `accuracy: balanced` scores and chooses by the mean over classes."""

import pytest

from downstream_tasks.registry import load_expert
from downstream_tasks.score import Score
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.config import load_config
from tests.tasks.mini import lay_out

# Truth and two sets of predictions: the second is worse over all utterances and better over classes.
TRUTH = ["a"] * 8 + ["b"] * 2
FIRST = ["a"] * 8 + ["a"] * 2
SECOND = ["b"] * 4 + ["a"] * 4 + ["b"] * 2


class Scalars(dict):
    def add_scalar(self, name, value, global_step):
        self[name.partition("/")[2]] = value


@pytest.fixture(params=["ks", "sid", "er"])
def build(request, tmp_path, monkeypatch):
    lay_out(request.param, request, tmp_path)
    monkeypatch.chdir(tmp_path)
    block = load_config([f"configs/{request.param}.yaml", f"configs/mini/{request.param}.yaml"])["downstream_expert"]
    return lambda **keys: load_expert(request.param)(
        upstream_dim=4, upstream_rate=320, downstream_expert={**block, **keys}, expdir=str(tmp_path)
    )


def log(expert, predicted, split="dev"):
    scalars = Scalars()
    rows = {"predict": [(one,) for one in predicted], "truth": [(one,) for one in TRUTH]}
    records = {
        "acc": [float(one == other) for one, other in zip(predicted, TRUTH, strict=True)],
        expert.loss_name: [1.0],
        "name": [f"u{number}" for number in range(len(TRUTH))],
        **rows,
    }
    return expert.log_records(split, records, scalars, 1), scalars


def test_pooled_is_the_default(build):
    expert = build()
    assert expert.protocol["accuracy"] == "pooled"
    assert expert.score == Score("acc", "test", higher_is_better=True)
    chosen, scalars = log(expert, FIRST)
    assert (chosen, scalars["dev-acc"], scalars["dev-balanced_acc"]) == (["dev-best.ckpt"], pytest.approx(0.8), 0.5)
    chosen, scalars = log(expert, SECOND)
    assert (chosen, scalars["dev-acc"], scalars["dev-balanced_acc"]) == ([], pytest.approx(0.6), 0.75)
    assert expert.best_score.item() == pytest.approx(0.8)


def test_balanced_scores_and_chooses_by_classes(build):
    expert = build(accuracy="balanced")
    assert expert.protocol["accuracy"] == "balanced"
    assert expert.score == Score("balanced_acc", "test", higher_is_better=True)
    assert [log(expert, predicted)[0] for predicted in (FIRST, SECOND, FIRST)] == [["dev-best.ckpt"]] * 2 + [[]]
    assert log(expert, SECOND, split="test")[0] == []
    assert expert.best_score.item() == 0.75


def test_no_other(build):
    with pytest.raises(ConfigError, match=r"downstream_expert\.accuracy` must be one of pooled, balanced"):
        build(accuracy="weighted")


@pytest.mark.parametrize("split", ["train", "dev"])
def test_nothing_to_be_accurate_about(build, split):
    expert = build()
    with pytest.raises(DataError, match=f"{split}: no utterance could be read"):
        expert.log_records(split, {"acc": [], expert.loss_name: []}, Scalars(), 1)
