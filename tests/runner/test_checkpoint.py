"""Checkpoints: written whole or not at all, data only, and refused with a message."""

import argparse
import os

import pytest
import torch

from s3prl_interfaces.errors import CheckpointError
from s3prl_interfaces.runner import randomness
from s3prl_interfaces.runner.checkpoint import find_checkpoint, load_checkpoint, load_weights, save_checkpoint
from s3prl_interfaces.runner.plan import lane_folders

STATES = {"Args": {"seed": 1}, "Config": {}, "Step": 3, "Downstream": {"weight": torch.ones(2)}}


def test_round_trip_as_data(tmp_path):
    save_checkpoint(tmp_path / "a.ckpt", STATES)
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    assert torch.load(tmp_path / "a.ckpt", weights_only=True)["Step"] == 3
    assert torch.equal(load_checkpoint(tmp_path / "a.ckpt")["Downstream"]["weight"], torch.ones(2))


@pytest.mark.parametrize("moment", ["writing", "renaming"])
def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "a.ckpt"
    save_checkpoint(path, STATES)
    old = path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    if moment == "writing":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(CheckpointError, match=r"a\.ckpt cannot be written: No space left"):
        save_checkpoint(path, {**STATES, "Step": 4})
    assert path.read_bytes() == old
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.ckpt"]


def test_reads_s3prls_own(tmp_path):
    """S3PRL pickles its arguments as a Namespace."""
    torch.save({**STATES, "Args": argparse.Namespace(seed=5, upstream="fbank")}, tmp_path / "states-3.ckpt")
    assert load_checkpoint(find_checkpoint(tmp_path))["Args"] == {"seed": 5, "upstream": "fbank"}


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_refuses_programs(tmp_path):
    torch.save({**STATES, "Config": Malicious(tmp_path / "harm")}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="holds more than tensors and plain data"):
        load_checkpoint(tmp_path / "a.ckpt")
    assert not (tmp_path / "harm").exists()


def test_refuses_what_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "none.ckpt")
    (tmp_path / "bytes.ckpt").write_bytes(os.urandom(1000))
    with pytest.raises(CheckpointError, match=r"bytes\.ckpt cannot be read"):
        load_checkpoint(tmp_path / "bytes.ckpt")
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "upstream.ckpt")
    with pytest.raises(CheckpointError, match=r"upstream go to `-k`"):
        load_checkpoint(tmp_path / "upstream.ckpt")
    with pytest.raises(CheckpointError, match=r"holds no `states-<step>\.ckpt`"):
        find_checkpoint(tmp_path)


@pytest.mark.parametrize(("key", "value"), [("Args", [1]), ("Config", "x"), ("Step", "x"), ("Step", 1.5)])
def test_refuses_a_checkpoint_of_other_types(tmp_path, key, value):
    torch.save({**STATES, key: value}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=rf"a\.ckpt is damaged: its {key} is {value!r}".replace("[", r"\[")):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("name", ["x" * 300, "a\0b"])
def test_names_that_no_disk_can_have(tmp_path, name):
    for function in (load_checkpoint, find_checkpoint):
        with pytest.raises(CheckpointError, match="does not exist"):
            function(tmp_path / name)


@pytest.mark.parametrize("text", ["!!timestamp x", "!!int ''", "[" * 2000, "- &a [*a]", "\0", "3", "{a: 1}"])
def test_a_damaged_list_of_lanes_is_none(tmp_path, text):
    (tmp_path / "lanes.yaml").write_text(text)
    assert lane_folders(tmp_path) == []


def test_the_newest_step_is_found_by_number(tmp_path):
    for name in ("states-9.ckpt", "states-10.ckpt", "dev-best.ckpt", "states-x.ckpt"):
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).name == "states-10.ckpt"


def test_another_shape_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"Downstream weights of .*a\.ckpt do not fit this run"):
        load_weights(torch.nn.Linear(3, 2), {"weight": torch.ones(1)}, "Downstream", tmp_path / "a.ckpt")


def test_random_states_survive_a_checkpoint(tmp_path):
    import random

    import numpy as np

    def draw():
        return random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item()

    randomness.seed_everything(3)
    np.random.randn()  # numpy keeps the second of each pair of normal numbers
    save_checkpoint(tmp_path / "a.ckpt", {**STATES, "Random": randomness.capture()})
    expected = draw()
    draw()
    randomness.restore(load_checkpoint(tmp_path / "a.ckpt")["Random"])
    assert draw() == expected


def test_preserved_restores_after_errors():
    randomness.seed_everything(0)
    expected = torch.rand(1)
    randomness.seed_everything(0)
    with pytest.raises(KeyError), randomness.preserved(seed=5):
        {}[torch.rand(7)]
    assert torch.equal(torch.rand(1), expected)
