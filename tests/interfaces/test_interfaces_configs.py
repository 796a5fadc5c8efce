"""``configs/interface/*.yaml`` says what the constructors say."""

from pathlib import Path

import pytest
import yaml

from s3prl_interfaces import build_interface, list_interfaces
from s3prl_interfaces.interfaces import get_spec, interface_options

FOLDER = Path(__file__).parents[2] / "configs" / "interface"
BUILT_IN = [name for name in list_interfaces() if get_spec(name).cls.__module__.startswith("s3prl_interfaces.")]


def test_every_interface_has_one():
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == BUILT_IN


@pytest.mark.parametrize("name", BUILT_IN)
def test_it_states_the_defaults(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    config = yaml.safe_load(text)
    assert list(config) == ["interface"]
    assert list(config["interface"].items()) == [("name", name), *interface_options(name).items()]
    build_interface(**config["interface"], num_layers=13, feature_dim=8)

    heading, _, _, *options = text.splitlines()  # after the name
    assert heading.startswith("# ")
    assert all("  # " in line for line in options), "each option has a comment"
