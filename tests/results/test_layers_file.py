"""layers.json: what is written is read back, and what is broken is said."""

import dataclasses
import json
import os

import pytest

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.layers import LayerResult, Weights, read_layers, write_layers

RESULT = LayerResult(
    split="dev",
    metric="acc",
    higher_is_better=True,
    score=0.91,
    without=(0.9, 0.5, 0.92),
    step=500,
    checkpoint="dev-best.ckpt",
    weights=Weights(
        what="softmax weights of each group",
        rows=("group 1", "group 2"),
        values=((0.25, 0.75, 0.0), (0.0, 0.0, 1.0)),
    ),
)
CONTENT = {
    "schema_version": 1,
    "split": "dev",
    "metric": "acc",
    "higher_is_better": True,
    "score": 0.91,
    "without": [0.9, 0.5, 0.92],
    "mean_over": "utterance",
    "step": 500,
    "checkpoint": "dev-best.ckpt",
    "weights": {
        "what": "softmax weights of each group",
        "rows": ["group 1", "group 2"],
        "values": [[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]],
    },
}


def test_the_form(tmp_path):
    write_layers(tmp_path, RESULT)
    assert [path.name for path in tmp_path.iterdir()] == ["layers.json"]
    assert json.loads((tmp_path / "layers.json").read_text()) == CONTENT


@pytest.mark.parametrize(
    "result",
    [
        RESULT,
        dataclasses.replace(RESULT, weights=None),
        dataclasses.replace(RESULT, higher_is_better=False, mean_over="split", score=0, step=0),
    ],
)
def test_round_trip(tmp_path, result):
    write_layers(tmp_path, result)
    assert read_layers(tmp_path) == result


def test_what_is_lost():
    assert RESULT.lost == pytest.approx((0.01, 0.41, -0.01))
    assert dataclasses.replace(RESULT, higher_is_better=False).lost == pytest.approx((-0.01, -0.41, 0.01))


def test_no_file(tmp_path):
    assert read_layers(tmp_path) is None


def test_keys_that_may_be_missing_or_unknown(tmp_path):
    content = {key: value for key, value in CONTENT.items() if key not in ("mean_over", "weights")}
    (tmp_path / "layers.json").write_text(json.dumps({**content, "later": 1}))
    assert read_layers(tmp_path) == dataclasses.replace(RESULT, weights=None)


WRONG = [
    ("schema_version", 2, "`schema_version` must be 1, but is 2"),
    ("schema_version", True, "`schema_version` must be 1, but is True"),
    ("schema_version", None, "`schema_version` must be 1, but is None"),
    ("split", "", "`split` must be a name"),
    ("metric", 3, "`metric` must be a name, but is 3"),
    ("higher_is_better", 1, "`higher_is_better` must be true or false, but is 1"),
    ("score", None, "`score` must be a finite number, but is None"),
    ("score", float("nan"), "`score` must be a finite number, but is nan"),
    ("score", True, "`score` must be a finite number, but is True"),
    ("without", [], "`without` must be a list of finite numbers"),
    ("without", [0.1, float("inf"), 0.2], "`without` must be a list of finite numbers"),
    ("without", "0.1", "`without` must be a list of finite numbers"),
    ("mean_over", "corpus", "`mean_over` must be utterance or split, but is 'corpus'"),
    ("step", -1, "`step` must be a whole number of 0 or more"),
    ("step", 1.5, "`step` must be a whole number of 0 or more"),
    ("checkpoint", None, "`checkpoint` must be a name"),
    ("weights", [1], "`weights` must be null or an object"),
    ("weights", {**CONTENT["weights"], "what": None}, "`weights.what` must be a name"),
    ("weights", {**CONTENT["weights"], "rows": []}, "`weights.rows` must be a list of names"),
    ("weights", {**CONTENT["weights"], "rows": "ab"}, "`weights.rows` must be a list of names"),
    ("weights", {**CONTENT["weights"], "rows": ["one"]}, "`weights.values` must be 1 x 3 finite numbers"),
    ("weights", {**CONTENT["weights"], "values": [[1, 0, 0], [0, 1]]}, "`weights.values` must be 2 x 3"),
    ("weights", {**CONTENT["weights"], "values": [[1, 0, 0], [0, 1, None]]}, "`weights.values` must be 2 x 3"),
    ("weights", {**CONTENT["weights"], "values": None}, "`weights.values` must be 2 x 3"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_value(tmp_path, key, value, message):
    (tmp_path / "layers.json").write_text(json.dumps({**CONTENT, key: value}))
    with pytest.raises(ResultError, match=rf"layers.json cannot be used \({message}.*: make it again with"):
        read_layers(tmp_path)


@pytest.mark.parametrize("key", [key for key in CONTENT if key not in ("mean_over", "weights")])
def test_a_missing_key(tmp_path, key):
    (tmp_path / "layers.json").write_text(json.dumps({name: value for name, value in CONTENT.items() if name != key}))
    with pytest.raises(ResultError, match=f"`{key}` must be"):
        read_layers(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[" * 100_000])
def test_no_json(tmp_path, content):
    (tmp_path / "layers.json").write_bytes(content)
    with pytest.raises(ResultError, match=r"layers.json cannot be read .*: make it again"):
        read_layers(tmp_path)


def test_something_else(tmp_path):
    (tmp_path / "layers.json").write_text("[1, 2]")
    with pytest.raises(ResultError, match=r"it must hold an object, but holds \[1, 2\]"):
        read_layers(tmp_path)


def test_everything_that_is_wrong_is_said(tmp_path):
    (tmp_path / "layers.json").write_text(json.dumps({**CONTENT, "score": None, "step": None}))
    with pytest.raises(ResultError, match=r"`score` must be .*; `step` must be"):
        read_layers(tmp_path)


def test_an_invalid_result_is_not_written(tmp_path):
    write_layers(tmp_path, RESULT)
    with pytest.raises(ResultError, match=r"Could not write .*layers.json: `without` must be a list of finite numbers"):
        write_layers(tmp_path, dataclasses.replace(RESULT, without=(0.9, float("nan"), 0.9)))
    assert read_layers(tmp_path) == RESULT


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_layers(tmp_path, RESULT)

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ResultError, match=r"Could not write .*layers.json: disk full"):
        write_layers(tmp_path, dataclasses.replace(RESULT, score=0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["layers.json"]
    assert read_layers(tmp_path) == RESULT


def test_no_folder(tmp_path):
    with pytest.raises(ResultError, match="Could not write"):
        write_layers(tmp_path / "nowhere", RESULT)
