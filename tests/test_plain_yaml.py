"""YAML as plain data: what it accepts beyond PyYAML, and what it refuses."""

import pytest
import yaml

from s3prl_interfaces.plain_yaml import DEEPEST, MOST_VALUES, PlainYAMLError, read_plain_yaml
from s3prl_interfaces.runner.config import shipped_configs

ALIASES = "a0: &a0 x\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]\n" for n in range(1, 6))
"""Ten times as many values in each line."""


@pytest.mark.parametrize("path", sorted(shipped_configs().rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_configs_read_as_ever(path):
    text = path.read_text(encoding="utf-8")
    expected = yaml.safe_load(text)
    assert read_plain_yaml(text) == expected or "e-" in text  # 1e-4 is a text to PyYAML


def test_numbers():
    assert read_plain_yaml("[1e-4, 1.0e-4, 2E+3, -5, 0x10, 18446744073709551615]") == [
        1e-4,
        1e-4,
        2e3,
        -5,
        16,
        2**64 - 1,
    ]
    assert read_plain_yaml("") is None


def test_an_alias_is_a_copy():
    data = read_plain_yaml("a: &a {x: [1]}\nb: *a\nc: {<<: *a, y: 2}")
    assert data == {"a": {"x": [1]}, "b": {"x": [1]}, "c": {"x": [1], "y": 2}}
    data["a"]["x"].append(2)
    assert data["b"] == {"x": [1]}
    assert data["c"]["x"] == [1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ALIASES, f"more than {MOST_VALUES} values"),
        ("a: &a [*a]", "more than 100 deep"),
        ("[" * (DEEPEST + 2) + "]" * (DEEPEST + 2), "more than 100 deep"),
        ("[" * 20_000, "more than 100 deep"),
        ("18446744073709551616", "more than 64 bits"),
        ("-9223372036854775809", "more than 64 bits"),
        ('"a\\0b"', "NUL"),
        ('{"\\ud800": 1}', "surrogate"),
        ("!!timestamp x", "does not fit its tag"),
        ("!!int ''", "does not fit its tag"),
        ("!!bool x", "does not fit its tag"),
        ("!!python/object/apply:os.system [ls]", "python/object"),
        ("a: [", "expected the node content"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(PlainYAMLError, match=reason) as caught:
        read_plain_yaml(text)
    assert "\n" not in str(caught.value)


def test_as_deep_as_allowed():
    text = "[" * DEEPEST + "1" + "]" * DEEPEST
    assert repr(read_plain_yaml(text)) == text
