"""What runs leave behind, damaged: read, or refused with one message that names the file or its folder."""

import argparse
import dataclasses
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from s3prl_interfaces.results import RunResult, build_leaderboard, load_runs, read_result, render_leaderboard
from s3prl_interfaces.results.layers import LAYERS_FILE, LayerResult, Weights, read_layers, write_layers
from s3prl_interfaces.results.predictions import read_scores
from s3prl_interfaces.results.problems import inspect_folder
from s3prl_interfaces.results.record import Primary
from s3prl_interfaces.results.store import RESULT_FILE, write_result
from s3prl_interfaces.runner.checkpoint import load_checkpoint, save_checkpoint
from tests.fuzz.helpers import SHORT, contents, outcome

PREDICTIONS = {
    "ic": ("acc", 0.5, "test_predict.csv", "a,on,lights,kitchen\nb,off,lights,none\n", "test_truth.csv"),
    "asr": ("wer", 20.0, "test-noLM-hyp.ark", "a THE BEATLES IN\nb \n", "test-noLM-ref.ark"),
    "pr": ("per", 0.2, "test-hyp.ark", "a AA0 B\nb K\n", "test-ref.ark"),
    "sf": (
        "slot_type_f1",
        0.5,
        "test-hyp.ark",
        "a PLAY B-artist ME E-artist\nb IN B-city ROME E-city\n",
        "test-ref.ark",
    ),
    "sv": ("EER", 0.0, "test_predict.txt", "a_b 0.9\na_c 0.1\nb_c -0.5\n", "test_truth.txt"),
}
"""By task: metric, its value, and the predictions; the truth is like them, or of trials 1, 0 and 0."""


def result_of(task):
    metric, value, *_ = PREDICTIONS[task]
    primary = Primary(name=metric, split="test", value=value, higher_is_better=metric in ("acc", "slot_type_f1"))
    return RunResult(
        task=task, upstream="hubert", interface="hconv", interface_options={"kernel_size": 3}, seed=1, data_seed=1,
        learning_rate=0.1, metrics={"test": {metric: value, "step": 4}}, primary=primary, selection=primary,
        parameters={"interface": 7}, config_sha256="0" * 64, versions={"torch": "2"}, seconds={"train": 1.5},
    )  # fmt: skip


def valid_result(task="ic"):
    return json.dumps(result_of(task).to_json()).encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([10**400, -0.0, 1e308]) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
places = st.sampled_from(
    [(field.name,) for field in dataclasses.fields(RunResult)]
    + [("primary", field.name) for field in dataclasses.fields(Primary)]
    + [
        ("metrics", "test"),
        ("metrics", "test", "acc"),
        ("metrics", "dev"),
        ("parameters", "interface"),
        ("seconds", "x"),
    ]
)


def with_value(place, value):
    """A result with one value replaced; that of the score in both places."""
    data = json.loads(valid_result())
    *above, last = place
    parent = data
    for key in above:
        parent = parent[key]
    parent[last] = value
    if place == ("metrics", "test", "acc"):
        data["primary"]["value"] = data["selection"]["value"] = value
    return json.dumps(data).encode()


def test_results(tried, tmp_path):
    """A result that can be read can be shown, too."""
    path = tmp_path / RESULT_FILE

    @given(contents(valid_result()) | st.builds(with_value, places, json_values))
    @example(with_value(("metrics", "test", "acc"), 10**400))
    @example(with_value(("metrics", "test", "acc"), 1e308))
    @example(with_value(("upstream",), "\ud800"))
    @example(with_value(("interface_options",), {"a": [[]]}).replace(b"[[]]", b"[" * 3000 + b"]" * 3000))
    @example(b"[" * 100_000)
    def holds(content):
        path.write_bytes(content)
        result = outcome(lambda: read_result(path), str(path))
        if result is None:
            return
        runs = outcome(lambda: load_runs([tmp_path]))
        board = outcome(lambda: build_leaderboard(runs))
        for form in ("table", "markdown", "csv", "json", "latex"):
            outcome(lambda form=form: render_leaderboard(board, form)).encode()
        write_result(path, result)
        assert read_result(path) == result

    tried(holds)


def test_layers(tried, tmp_path):
    weights = Weights(what="softmax weights", rows=("a",), values=((0.5, 0.5),))
    layers = LayerResult(
        split="dev", metric="acc", higher_is_better=True, score=0.5, without=(0.1, 0.2), step=3, checkpoint="c",
        weights=weights,
    )  # fmt: skip
    write_layers(tmp_path, layers)
    path = tmp_path / LAYERS_FILE
    valid = path.read_bytes()
    assert read_layers(tmp_path) == layers

    @given(contents(valid))
    @example(valid.replace(b'"score": 0.5', b'"score": 1' + b"0" * 400))
    @example(b"[" * 100_000)
    def holds(content):
        path.write_bytes(content)
        outcome(lambda: read_layers(tmp_path), str(path))

    tried(holds)


@pytest.mark.parametrize("task", list(PREDICTIONS))
def test_predictions(tried, tmp_path, task):
    _, _, file, said, truth = PREDICTIONS[task]
    right = "a_b 1\na_c 0\nb_c 0\n" if task == "sv" else said
    (tmp_path / truth).write_text(right, encoding="utf-8")
    (tmp_path / file).write_text(said, encoding="utf-8")
    result = result_of(task)

    @given(contents(said.encode()), st.sampled_from([file, truth]))
    def holds(content, damaged):
        (tmp_path / truth).write_text(right, encoding="utf-8")
        (tmp_path / file).write_text(said, encoding="utf-8")
        (tmp_path / damaged).write_bytes(content)
        outcome(lambda: read_scores(result, tmp_path), str(tmp_path))

    tried(holds)


def test_the_split_of_predictions(tried, tmp_path):
    """`results.json` says in which files they are."""

    @given(
        st.sampled_from(list(PREDICTIONS)),
        st.text("a. /é", max_size=5) | st.sampled_from(["\0", "\ud800", "a" * 300, "a/b"]),
    )
    def holds(task, split):
        result = result_of(task)
        result = dataclasses.replace(result, primary=dataclasses.replace(result.primary, split=split))
        assert outcome(lambda: read_scores(result, tmp_path), "_predict", "-hyp", "-noLM") is None

    tried(holds)


@pytest.mark.parametrize("file", ["failed.json", "config.yaml"])
def test_what_is_wrong_with_a_run(tried, tmp_path, file):
    (tmp_path / "states-4.ckpt").touch()
    valid = {"failed.json": b'{"step": 3, "reason": "it died"}', "config.yaml": b"runner: {total_steps: 10}\n"}[file]

    @given(contents(valid, SHORT))
    @example(b"[" * 100_000)
    @example(b"a: !!timestamp x")
    @example(b"!!int ''")
    def holds(content):
        (tmp_path / file).write_bytes(content)
        assert isinstance(outcome(lambda: inspect_folder(tmp_path)), str)

    tried(holds)


# Checkpoints


class Called:
    """A pickle of it calls something."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def states(**more):
    return {
        "Args": argparse.Namespace(mode="train", seed=1), "Config": {"runner": {}}, "Step": 3, "Epoch": 1,
        "Downstream": {"w": torch.ones(3)}, **more,
    }  # fmt: skip


def zipped(data):
    """A pickle in the form of a checkpoint."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return file.getvalue()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_checkpoints(tried, tmp_path, legacy):
    path, spoilt = tmp_path / "states-3.ckpt", tmp_path / "spoilt"
    if legacy:
        torch.save(states(), path, _use_new_zipfile_serialization=False)
    else:
        save_checkpoint(path, states())
    assert load_checkpoint(path)["Step"] == 3
    evil = [pickle.dumps(states(Optimizer=Called(spoilt)), protocol=protocol) for protocol in (0, 2, 4)]

    @given(contents(path.read_bytes(), SHORT) | st.sampled_from(SHORT).map(lambda odd: zipped(pickle.dumps(odd))))
    @example(evil[0])
    @example(evil[1])
    @example(evil[2])
    @example(zipped(evil[1]))
    @example(zipped(pickle.dumps(Called(spoilt), protocol=2)))
    def holds(content):
        path.write_bytes(content)
        found = outcome(lambda: load_checkpoint(path), str(path))
        assert found is None or {"Args", "Config", "Step", "Downstream"} <= found.keys()
        assert not spoilt.exists()

    tried(holds)


def test_the_pickle_would_have_called(tmp_path):
    pickle.loads(pickle.dumps(Called(tmp_path / "spoilt")))
    assert (tmp_path / "spoilt").exists()
