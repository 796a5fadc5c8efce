"""Which lanes a command line and a config ask for."""

import pytest

from s3prl_interfaces.cli import main
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner.config import interface_block, parse_interface, set_interface
from s3prl_interfaces.runner.variants import variants

OPTIMIZER = {"optimizer": {"name": "Adam", "lr": 1e-4}}


def lanes(config=None, **arguments):
    return variants(RunArguments(mode="train", expdir="run", **arguments), {**OPTIMIZER, **(config or {})})


def names(config=None, **arguments):
    return [lane.name for lane in lanes(config, **arguments)]


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("hconv", "hconv", {}),
        ("hconv:kernel_size=3", "hconv", {"kernel_size": 3}),
        ("hconv:kernel_size=3,stride=2,normalize=true", "hconv", {"kernel_size": 3, "stride": 2, "normalize": True}),
        ("grouped_weighted_sum:groups=[[0, 1], [2]],normalize=false", "grouped_weighted_sum", None),
        ("package.module:Class", "package.module:Class", {}),
        ("package.module:Class:rate=1e-3,mode=max", "package.module:Class", {"rate": 0.001, "mode": "max"}),
        ({"name": "hconv", "kernel_size": 3}, "hconv", {"kernel_size": 3}),
    ],
)
def test_an_interface_with_options(text, name, options):
    expected = {"groups": [[0, 1], [2]], "normalize": False} if options is None else options
    assert parse_interface(text) == (name, expected)


@pytest.mark.parametrize("text", ["hconv:kernel_size=[3", {"kernel_size": 3}, 3, ["hconv"]])
def test_an_interface_that_is_none(text):
    with pytest.raises(ConfigError):
        parse_interface(text)


def test_options_of_the_command_line_win_over_the_configs():
    config = {"interface": {"name": "hconv", "kernel_size": 3, "stride": 2}}
    set_interface(config, "hconv", {"kernel_size": 7})
    assert interface_block(config) == ("hconv", {"kernel_size": 7, "stride": 2})
    set_interface(config, "concat", {"normalize": True})
    assert interface_block(config) == ("concat", {"normalize": True})


def test_one_lane_is_the_run_itself():
    for arguments in ({}, {"interface": ["hconv"]}, {"seeds": [3]}, {"lr": [0.1]}, {"normalize": "on"}):
        (lane,) = lanes(**arguments)
        assert str(lane.args.folder) == "run"
        assert (lane.args.seeds, lane.args.lr, lane.args.normalize) == ([], [], None)


def test_every_combination_is_a_lane():
    found = lanes(interface=["weighted_sum", "hconv:kernel_size=3"], seeds=[1, 2], lr=[1e-3, 0.1], normalize="both")
    assert len(found) == len({lane.name for lane in found}) == 16
    last = found[-1]
    assert last.name == "hconv-kernel_size=3-normalize=true-seed=2-lr=0.1"
    assert str(last.args.folder) == f"run/{last.name}"
    assert last.args.interface == ["hconv"]
    assert (last.args.seed, last.args.order_seed) == (2, 1337)
    assert last.config["interface"] == {"name": "hconv", "kernel_size": 3, "normalize": True}
    assert last.config["optimizer"] == {"name": "Adam", "lr": 0.1}
    assert found[0].name == "weighted_sum-seed=1-lr=0.001"
    assert found[0].config["interface"] == {"name": "weighted_sum"}


def test_names_of_folders_have_no_strange_characters():
    assert names(interface=["a.b:C:mode=x/y", "d"]) == ["a.b_C-mode=x_y", "d"]
    groups = "grouped_weighted_sum:groups=[[0, 1], [2]]"
    assert names(interface=[groups, "d"])[0] == "grouped_weighted_sum-groups=[[0,_1],_[2]]"


def test_the_configs_interfaces_and_options():
    config = {
        "interfaces": ["concat", {"name": "hconv", "stride": 2}],
        "interface": {"name": "hconv", "kernel_size": 3},
    }
    assert names(config) == ["concat", "hconv-kernel_size=3-stride=2"]
    assert names(config, interface=["hconv"]) == ["hconv-kernel_size=3"]
    assert all("interfaces" not in lane.config for lane in lanes(config))
    with pytest.raises(ConfigError, match="`interfaces` must be a list"):
        names({"interfaces": "concat"})


def test_overrides_are_of_every_lane():
    override = "config.interface.normalize=true,,config.optimizer.lr=0.5,,args.upstream=x"
    found = lanes(interface=["concat", "hconv"], override=override)
    assert [lane.name for lane in found] == ["concat-normalize=true", "hconv-normalize=true"]
    assert {lane.args.upstream for lane in found} == {"x"}
    assert {lane.config["optimizer"]["lr"] for lane in found} == {0.5}
    assert {
        lane.config["optimizer"]["lr"] for lane in lanes(interface=["concat"], lr=[0.1, 0.2], override=override)
    } == {0.1, 0.2}


def test_normalisation_is_turned_off_and_on():
    config = {"interface": {"name": "hconv", "normalize": True}}
    assert interface_block(lanes(config)[0].config) == ("hconv", {"normalize": True})
    assert interface_block(lanes(config, normalize="off")[0].config) == ("hconv", {})
    assert interface_block(lanes(normalize="on")[0].config) == ("weighted_sum", {"normalize": True})
    with pytest.raises(ConfigError, match="`--normalize` must be off, on or both, but is 'yes'"):
        lanes(normalize="yes")


def test_a_learning_rate_needs_an_optimizer():
    with pytest.raises(ConfigError, match="the config has no `optimizer` block"):
        lanes({"optimizer": None}, lr=[0.1])


def test_from_the_command_line(monkeypatch):
    asked = []
    monkeypatch.setattr("s3prl_interfaces.runner.run", asked.append)
    monkeypatch.setattr("s3prl_interfaces.runner.logs.log_to_terminal", lambda verbose: None)
    flags = ["--interface", "a", "b:c=1", "--seeds", "1", "2", "--lr", "1e-3", "0.1", "--normalize", "both"]
    assert main(["run", "-m", "train", *flags, "--data_seed", "7"]) == 0
    (args,) = asked
    assert (args.interface, args.seeds, args.lr) == (["a", "b:c=1"], [1, 2], [0.001, 0.1])
    assert (args.normalize, args.order_seed, args.seed) == ("both", 7, 1337)


@pytest.mark.parametrize(
    ("asked", "override", "upstream"),
    [
        (None, None, "small"),
        ("hubert", None, "hubert"),
        (None, "args.upstream=fbank", "fbank"),
        (None, "config.upstream=fbank", "fbank"),
        ("hubert", "config.upstream=fbank", "fbank"),
        ("hubert", "args.upstream=fbank", "fbank"),
    ],
)
def test_the_configs_upstream_stands_in_for_the_one_that_is_left_out(asked, override, upstream):
    args = RunArguments(mode="train", upstream=asked, override=override)
    (lane,) = variants(args, {"upstream": "small", "runner": {}})
    assert lane.args.upstream == upstream
    assert lane.config == {"runner": {}}


def test_the_configs_upstream_is_a_name():
    with pytest.raises(ConfigError, match=r"`upstream` must be a name, as `-u` takes it, but is \['hubert'\]"):
        variants(RunArguments(mode="train"), {"upstream": ["hubert"]})
