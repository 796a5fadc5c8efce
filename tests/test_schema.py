"""Blocks of YAML read into dataclasses: what is refused, and how."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int
    depth: int = 1


@dataclass(frozen=True, kw_only=True)
class Block:
    steps: int
    rate: float = 0.1
    half: bool = False
    name: str = "x"
    splits: list[str] = field(default_factory=list)
    sizes: tuple[int, ...] = ()
    path: str | None = None
    ratio: float | None = None
    kind: Literal["mean", "max"] = "mean"
    inner: Inner = field(default_factory=lambda: Inner(width=3))
    options: dict[str, Any] = field(default_factory=dict)
    anything: Any = None


def read(**values):
    return read_block(Block, {"steps": 1, **values}, "runner")


@pytest.mark.parametrize(
    ("key", "given", "expected"),
    [
        ("steps", 5, 5),
        ("rate", 0.5, 0.5),
        ("rate", 2, 2.0),
        ("half", True, True),
        ("name", "", ""),
        ("splits", [], []),
        ("splits", ["dev", "test"], ["dev", "test"]),
        ("sizes", [1, 2], (1, 2)),
        ("path", None, None),
        ("path", "a", "a"),
        ("ratio", 1, 1.0),
        ("kind", "max", "max"),
        ("inner", {"width": 4}, Inner(width=4)),
        ("options", {"a": [1]}, {"a": [1]}),
        ("options", None, {}),
        ("anything", {"a": 1}, {"a": 1}),
    ],
)
def test_reads(key, given, expected):
    value = getattr(read(**{key: given}), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("key", "given", "message"),
    [
        ("steps", 1.5, "`runner.steps` must be of type int, but is 1.5."),
        ("steps", "1", "`runner.steps` must be of type int, but is '1'."),
        ("steps", True, "`runner.steps` must be of type int, but is True."),
        ("steps", None, "`runner.steps` must be of type int, but is None."),
        ("rate", "1e-4x", "`runner.rate` must be of type float, but is '1e-4x'."),
        ("rate", True, "`runner.rate` must be of type float, but is True."),
        ("half", 1, "`runner.half` must be of type bool, but is 1."),
        ("half", "yes", "`runner.half` must be of type bool, but is 'yes'."),
        ("name", 3, "`runner.name` must be of type str, but is 3."),
        ("splits", "dev", "`runner.splits` must be a list, but is 'dev'."),
        ("splits", ["dev", 1], "`runner.splits[1]` must be of type str, but is 1."),
        ("splits", {"dev": 1}, "`runner.splits` must be a list, but is {'dev': 1}."),
        ("sizes", [1, "2"], "`runner.sizes[1]` must be of type int, but is '2'."),
        ("path", 3, "`runner.path` must be of type str, but is 3."),
        ("ratio", "half", "`runner.ratio` must be of type float, but is 'half'."),
        ("kind", "median", "`runner.kind` must be one of mean, max, but is 'median'."),
        ("kind", ["mean"], "`runner.kind` must be one of mean, max, but is ['mean']."),
        ("inner", 3, "`runner.inner` must be a mapping, but is 3."),
        ("inner", {"width": "3"}, "`runner.inner.width` must be of type int, but is '3'."),
        ("inner", {"depth": 3}, "`runner.inner.width` is missing: add it to the config."),
        ("inner", None, "`runner.inner.width` is missing: add it to the config."),
        ("options", [1], "`runner.options` must be a mapping, but is [1]."),
    ],
)
def test_refuses_another_type(key, given, message):
    with pytest.raises(ConfigError) as error:
        read(**{key: given})
    assert str(error.value) == message


def test_unknown_key_names_block_and_nearest():
    with pytest.raises(ConfigError, match=r"key in `runner`: 'step'\. Did you mean 'steps'\? Possible: anything, half"):
        read(step=3)
    with pytest.raises(ConfigError, match=r"key in `runner\.inner`: 'widht'\. Did you mean 'width'\?"):
        read(inner={"widht": 3})
    with pytest.raises(ConfigError, match=r"key in `runner`: 7\. Possible"):
        read_block(Block, {7: 1}, "runner")


@pytest.mark.parametrize("block", [None, {}])
def test_missing_key(block):
    with pytest.raises(ConfigError, match=r"`runner\.steps` is missing"):
        read_block(Block, block, "runner")


@pytest.mark.parametrize("block", ["x", 3, ["steps"]])
def test_a_block_is_a_mapping(block):
    with pytest.raises(ConfigError, match=r"`runner` must be a mapping, but is"):
        read_block(Block, block, "runner")
    assert read_block(Inner, {"width": 2}, "inner") == Inner(width=2, depth=1)


def test_what_is_read_is_not_shared_with_what_was_given():
    given = {"steps": 1, "splits": ["dev"], "options": {"a": 1}}
    block = read_block(Block, given, "runner")
    block.splits.append("test")
    block.options["b"] = 2
    assert given == {"steps": 1, "splits": ["dev"], "options": {"a": 1}}


@dataclass(frozen=True, kw_only=True)
class Dashed:
    dev_clean: list[str] = field(metadata={"key": "dev-clean"})
    dev_other: list[str] = field(default_factory=list, metadata={"key": "dev-other"})


def test_a_key_need_not_be_a_name_in_python():
    assert read_block(Dashed, {"dev-clean": ["a"]}, "datarc") == Dashed(dev_clean=["a"])
    assert read_block(Dashed, {"dev-clean": [], "dev-other": ["b"]}, "datarc").dev_other == ["b"]
    for block, message in (
        ({}, r"`datarc\.dev-clean` is missing"),
        ({"dev_clean": ["a"]}, "Did you mean 'dev-clean'"),
        ({"dev-clean": "a"}, r"`datarc\.dev-clean` must be a list"),
    ):
        with pytest.raises(ConfigError, match=message):
            read_block(Dashed, block, "datarc")
