"""`-o`: whatever its text is, it sets exactly what it says, or is refused with one message."""

import copy
import dataclasses
import json

import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner.config import apply_overrides
from tests.fuzz.helpers import outcome

CONFIG = {
    "runner": {"total_steps": 10, "eval_dataloaders": ["dev"]},
    "scheduler": None,
    "interface": {"name": "hconv", "kernel_size": 5},
    "downstream_expert": {"datarc": {"file_path": "x"}, 1: {"a": 2}},
    "seed": 3,
}
PIECES = [
    *("config", "args", "config.", "args.", "runner", "runner.total_steps", "scheduler", "interface", "interface.name"),
    *("a", "1", "seed", "lr", "mode", "config.seed", "args.seed", "args.lr", ".", "=", "=", ",,", ",", " ", "\n", ":"),
    *(
        "[",
        "]",
        "{",
        "}",
        "&a ",
        "*a",
        "<<",
        "!!int ",
        "!!timestamp ",
        "!!python/name:os.system ",
        "'",
        '"',
        '"\\ud800"',
    ),
    *(
        "1e-4",
        ".nan",
        "1e400",
        "9" * 30,
        "9" * 5000,
        "[" * 2000,
        "None",
        "null",
        "true",
        "2001-01-01",
        "\0",
        "é",
        "\ud800",
    ),
]
"""What `-o` is made of."""

names = st.text("abcdefgh_-1é", min_size=1, max_size=4)
paths = st.lists(
    names | st.sampled_from(["runner", "scheduler", "datarc", "downstream_expert"]), min_size=1, max_size=4
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)


def apply(text):
    """Arguments and config after `-o text`."""
    args, config = RunArguments(mode="train"), copy.deepcopy(CONFIG)
    apply_overrides(text, args, config)
    return args, config


def test_any_text(tried):
    @given(st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
    @example("config.a=&a [*a]")
    @example("args.lr=0x" + "f" * 5000)
    @example("config.a=!!timestamp x")
    @example("args.seed=!!int ''")
    def holds(text):
        found = outcome(lambda: apply(text))
        if found is not None:
            assert all("=" in part for part in text.split(",,") if part.strip()) or text.strip().lower() == "none"
            args, config = found
            yaml.safe_dump([args.to_dict(), config])
            copy.deepcopy(config)

    tried(holds)


def test_any_value_of_an_argument(tried):
    fields = [field.name for field in dataclasses.fields(RunArguments)]
    odd = st.lists(st.sampled_from(PIECES), max_size=4).map("".join).filter(lambda text: ",," not in text)

    @given(st.sampled_from([*fields, "total_steps", ""]), odd | values.map(flow))
    def holds(name, value):
        found = outcome(lambda: apply(f"args.{name}={value}"), "arg")
        if found is not None:
            before, after = RunArguments(mode="train").to_dict(), found[0].to_dict()
            assert [key for key in fields if after[key] != before[key]] in ([], [name])
            assert found[1] == CONFIG

    tried(holds)


def test_an_assignment_sets_its_key_and_nothing_else(tried):
    @given(st.lists(st.tuples(paths, values), min_size=1, max_size=3))
    def holds(assignments):
        expected = copy.deepcopy(CONFIG)
        through = all(set_in(expected, path, value) for path, value in assignments)
        text = ",,".join(f"config.{'.'.join(path)}={flow(value)}" for path, value in assignments)
        found = outcome(lambda: apply(text), *(f"`{path}`" for path, _ in assignments), "-o config")
        assert (found is not None) == through
        if found is not None:
            assert found == (RunArguments(mode="train"), expected)

    tried(holds)


def flow(value):
    """A value as it may stand on a command line: JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)


def set_in(config, path, value):
    """Set a key; empty blocks on the way are made. Whether every block on the way is one."""
    *above, last = path
    for key in above:
        if config.get(key) is None:
            config[key] = {}
        config = config[key]
        if not isinstance(config, dict):
            return False
    config[last] = {"name": value} if path == ["interface"] and isinstance(value, str) else value
    return True
