"""The config: whatever a YAML file holds is read and used, or refused with one message that names it."""

import copy
import dataclasses
import importlib
import string

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from downstream_tasks.registry import TASKS
from s3prl_interfaces.results import config_sha256, load_published
from s3prl_interfaces.results.published import SHIPPED
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner.config import (
    BLOCKS,
    RunnerConfig,
    check_blocks,
    interface_block,
    load_config,
    merge,
    parse_interface,
    shipped_configs,
)
from s3prl_interfaces.runner.variants import variants
from s3prl_interfaces.schema import read_block
from tests.fuzz.helpers import SHORT, contents, outcome, within

CONFIG = (
    shipped_configs() / "ic.yaml"
).read_bytes() + b"interface: &a {name: hconv, kernel_size: 3}\ninterfaces: [*a]\n"

PIECES = [
    *(
        "a",
        "b",
        "runner",
        "interface",
        "name",
        "total_steps",
        "<<",
        ": ",
        ":",
        "- ",
        "\n",
        "\n",
        "\n  ",
        "\n    ",
        "? ",
    ),
    *("&a ", "*a", "&b ", "*b", "[", "]", "{", "}", ", ", "# ", "|\n", ">\n", "---\n", "...\n", "%YAML 9.9\n", "\t"),
    *(
        "1",
        "0",
        "-1",
        "1e400",
        "1e-4",
        ".nan",
        "-.inf",
        "0x",
        "f" * 9000,
        "9" * 5000,
        "0b1",
        "017",
        "1:2:3",
        "1_0",
        "~",
    ),
    *("2001-01-01", "2001-02-30", "2001-12-14t21:59:43.10-05:00", "yes", "null", "=", "'", '"', '"\\ud800"', '"\\0"'),
    *(
        "!!int ",
        "!!float ",
        "!!bool ",
        "!!timestamp ",
        "!!binary ",
        "!!set ",
        "!!omap ",
        "!!pairs ",
        "!!str ",
        "!!null ",
    ),
    *("!!map ", "!!seq ", "!!merge ", "!!python/object/apply:os.system ", "!x ", "! ", "\ud800", "\0", "é", "\u2028"),
]
"""What YAML is made of."""

DEEP = "a: " + "[" * 150 + "]" * 150
DEEPER = "{a: " * 20_000
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 30)
)
LOOP = "runner: &a {total_steps: 1, self: *a}"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.datetimes(),
    st.binary(max_size=4),
    st.text(max_size=8),
    st.sampled_from(["", "hconv", "hconv:kernel_size=3", "hconv:1=2", "a:b:c=", "\0", "a" * 300, 10**18, -0.0, [], {}]),
)
keys = st.one_of(st.sampled_from([*BLOCKS, "name", "total_steps", "lr", "kernel_size"]), st.text(max_size=3), scalars)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys.filter(lambda key: not isinstance(key, (list, dict))), inner, max_size=4)
    ),
    max_leaves=10,
)
blocks = st.dictionaries(keys.filter(lambda key: not isinstance(key, (list, dict))), values, max_size=6)


def use(config):
    """All that a run does with a config before it looks at the task's data."""
    assert merge(config, {}) == config or config != config  # nan
    merge(config, copy.deepcopy(config))
    repr(config)
    yaml.safe_dump(config)
    outcome(lambda: config_sha256(config))
    outcome(lambda: interface_block(config))
    outcome(lambda: check_blocks(config, strict=True))
    for task in TASKS:
        outcome(
            lambda task=task: read_block(expert_config(task.name), config.get("downstream_expert"), "downstream_expert")
        )
    lanes = outcome(lambda: variants(RunArguments(mode="train", expname="x"), config)) or []
    for lane in lanes:
        yaml.safe_dump(lane.config)


def expert_config(task):
    return importlib.import_module(f"downstream_tasks.{task}.expert").ExpertConfig


@pytest.fixture
def read(tmp_path):
    """Read a config file of these bytes and use what it holds."""
    path = tmp_path / "some.yaml"

    def read(content):
        path.write_bytes(content)
        config = outcome(lambda: load_config([str(path)]), "some.yaml")
        if config is not None:
            with within():
                use(config)

    return read


def test_damaged_files(tried, read):
    @given(contents(CONFIG, SHORT))
    def holds(content):
        read(content)

    tried(holds)


def test_odd_yaml(tried, read):
    @given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
    @example(BOMB)
    @example(MERGE_BOMB)
    @example(LOOP)
    @example(DEEP)
    @example(DEEPER)
    @example("a: !!timestamp x")
    @example("a: !!int ''")
    @example("a: !!bool x")
    @example("runner: {total_steps: 0x" + "f" * 9000 + "}")
    @example('interface: "\\ud800"')
    @example("interface: {name: hconv, 1: 2, a: 3}")
    @example("interface: {name: hconv, a: 2001-01-01}")
    @example("interface: {name: hconv, a: .nan}")
    def holds(text):
        read(text.encode("utf-8", "surrogatepass"))

    tried(holds)


def test_odd_values(tried, read):
    @given(blocks)
    def holds(config):
        text = yaml.safe_dump(config)
        read(text.encode("utf-8", "surrogatepass"))

    tried(holds)


def test_what_is_written_once_is_read_everywhere_but_shared_nowhere(tried, tmp_path):
    """An alias is a copy: what is changed at one place (by `-o`) stays as it is at the other."""
    path = tmp_path / "some.yaml"

    @given(st.dictionaries(st.sampled_from("xyz"), st.integers(-9, 9) | st.lists(st.just(1), max_size=2), min_size=1))
    def holds(block):
        path.write_text(f"one:\n  two: &a {block!r}\n  three: *a\n", encoding="utf-8")
        config = load_config([str(path)])
        config["one"]["two"].clear()
        assert config == {"one": {"two": {}, "three": block}}

    tried(holds)


@pytest.mark.parametrize(
    "cls", [RunnerConfig, *(expert_config(task.name) for task in TASKS)], ids=lambda cls: cls.__module__
)
def test_blocks(tried, cls):
    """One value of a valid block is replaced, or goes, or another key comes."""
    where = "runner" if cls is RunnerConfig else "downstream_expert"
    task = cls.__module__.split(".")[1] if cls is not RunnerConfig else "ic"
    valid = load_config([f"configs/{task}.yaml"])[where]
    places = list(places_in(valid))
    assert dataclasses.is_dataclass(read_block(cls, valid, where))

    @given(st.sampled_from(places), values, st.sampled_from(["set", "remove", "add"]))
    def holds(place, value, how):
        block = copy.deepcopy(valid)
        *above, last = place
        parent = block
        for key in above:
            parent = parent[key]
        if how == "remove":
            parent.pop(last)
        else:
            parent[last if how == "set" else f"{last}_"] = value
        read = outcome(lambda: read_block(cls, block, where), *place)
        assert read is None or dataclasses.is_dataclass(read)

    tried(holds)


def places_in(block):
    for key, value in block.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in places_in(value))


def test_interfaces_by_text(tried):
    letters = st.text("hconv:=,{}[]'\" -1.é\0" + string.ascii_letters[:3], max_size=30)

    @given(letters | st.builds("{}:{}={}".format, letters, letters, letters) | st.text(max_size=20))
    @example("a:" + "b" * 100_000 + ",c=1")
    @example("hconv:1=2")
    @example("hconv:name=concat")
    def holds(text):
        parsed = outcome(lambda: parse_interface(text))
        if parsed is not None:
            name, options = parsed
            assert isinstance(name, str)
            assert all(isinstance(key, str) and key != "name" for key in options)

    tried(holds)


def test_lanes(tried):
    """Whatever interfaces a config lists."""
    one = st.none() | values | st.fixed_dictionaries({"name": st.sampled_from(["hconv", "concat"]), "a": values})

    @given(
        st.fixed_dictionaries(
            {"optimizer": values},
            optional={"interfaces": values | st.lists(one, max_size=3), "interface": one, "upstream": values},
        )
    )
    def holds(config):
        outcome(lambda: variants(RunArguments(mode="train", expname="x", lr=[0.1], normalize="both"), config))

    tried(holds)


def test_published_figures(tried, tmp_path):
    path = tmp_path / "mine.yaml"
    valid = b"- {upstream: H, names: [h], interface: hconv, source: me, scores: {ic: {acc: 98.3}, pr: {per: 5}}}\n"
    path.write_bytes(valid)
    assert len(load_published(path)) == 1
    assert load_published(SHIPPED)
    odd = st.lists(st.sampled_from(PIECES), max_size=8).map(
        lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
    )

    @given(contents(valid, SHORT) | odd.map(lambda piece: valid.replace(b"98.3", piece)) | odd)
    @example(valid.replace(b"98.3", b"9" * 400))
    @example(valid.replace(b"98.3", b"!!timestamp x"))
    @example(BOMB.encode())
    @example(MERGE_BOMB.encode())
    def holds(content):
        path.write_bytes(content)
        outcome(lambda: load_published(path), "mine.yaml")

    tried(holds)
