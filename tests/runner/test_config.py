"""A run's config and arguments: merged left to right, ``-o`` on top, and what a checkpoint fixes."""

import argparse
import dataclasses
from pathlib import Path

import pytest
import yaml

from downstream_tasks.registry import TASKS
from s3prl_interfaces.cli import run_downstream
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.runner import RunArguments
from s3prl_interfaces.runner.config import (
    RunnerConfig,
    apply_overrides,
    check_blocks,
    find_config,
    interface_block,
    list_configs,
    load_config,
    merge,
    read_yaml,
    set_interface,
    shipped_configs,
)

S3PRL_RUNNER_KEYS = {
    "total_steps",
    "gradient_clipping",
    "gradient_accumulate_steps",
    "log_step",
    "eval_step",
    "save_step",
    "max_keep",
    "eval_dataloaders",
    "train_dataloader",
    "evaluate_ratio",
    "fp16",
}


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write


def overridden(text, config=None, args=None):
    """The config after ``-o text``."""
    config = {} if config is None else config
    apply_overrides(text, args or RunArguments(mode="train"), config)
    return config


def blocks(**runner):
    return {"runner": {"total_steps": 10, **runner}, "optimizer": {}, "downstream_expert": {}}


# Merging


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 3}}}, {"a": {"b": {"c": 3, "d": 2}}}),
        ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": {"b": 1}}, {"a": 2}, {"a": 2}),
        ({"a": 2}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"o": {"name": "A", "lr": 1}}, {"o": {"name": "B", "eps": 2}}, {"o": {"name": "B", "eps": 2}}),
        ({"o": {"name": "A", "lr": 1}}, {"o": {"name": "A", "eps": 2}}, {"o": {"name": "A", "lr": 1, "eps": 2}}),
        ({"o": {"name": "A", "lr": 1}}, {"o": {"lr": 2}}, {"o": {"name": "A", "lr": 2}}),
        ({"o": {"lr": 1}}, {"o": {"name": "B"}}, {"o": {"name": "B"}}),
    ],
)
def test_merge(base, over, merged):
    assert merge(base, over) == merged


def test_merge_shares_nothing_with_what_was_laid_over():
    over = {"a": [1], "b": {"c": [2]}}
    merged = merge({"b": {"d": 3}}, over)
    merged["a"].append(9)
    merged["b"]["c"].append(9)
    assert over == {"a": [1], "b": {"c": [2]}}


def test_files_are_merged_left_to_right(write):
    one = write("1.yaml", "runner: {total_steps: 1, eval_dataloaders: [dev, test]}\noptimizer: {name: Adam, lr: 1}")
    two = write("2.yaml", "runner: {total_steps: 2, eval_dataloaders: [dev]}")
    three = write("3.yaml", "optimizer: {name: AdamW}")
    assert load_config([one, two, three]) == {
        "runner": {"total_steps": 2, "eval_dataloaders": ["dev"]},
        "optimizer": {"name": "AdamW"},
    }
    assert load_config([two, one])["runner"]["total_steps"] == 1
    assert load_config([]) == {}


@pytest.mark.parametrize("text", ["", "# nothing\n", "null\n"])
def test_an_empty_file_changes_nothing(write, text):
    assert load_config([write("1.yaml", "a: 1"), write("2.yaml", text)]) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"x\.yaml is not valid YAML: .*line 1"),
        ("a: !!python/object/apply:os.getcwd []", r"x\.yaml is not valid YAML: .*could not determine a constructor"),
        ("- 1\n- 2\n", r"x\.yaml must hold a mapping at its top level, but holds \[1, 2\]"),
        ("just words", r"x\.yaml must hold a mapping"),
    ],
)
def test_a_file_that_cannot_be_used(write, text, message):
    with pytest.raises(ConfigError, match=message) as error:
        read_yaml(Path(write("x.yaml", text)))
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"x\.yaml cannot be read"):
        read_yaml(tmp_path / "x.yaml")


# Shipped configs


@pytest.mark.parametrize("name", ["configs/mini/ic.yaml", "mini/ic.yaml"])
def test_shipped_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == shipped_configs() / "mini" / "ic.yaml"


def test_a_file_of_the_users_comes_before_a_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "ic.yaml").write_text("a: 1")
    assert load_config(["configs/ic.yaml"]) == {"a": 1}


@pytest.mark.parametrize("name", ["configs/mini/ci.yaml", "/configs/mini/ic.yaml", "ic", ""])
def test_no_such_config(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"does not exist\. .*configs/mini/ic\.yaml"):
        find_config(name)


def test_shipped_configs_make_runs():
    """A task's own, its small one over it, the quick one over both, and every interface over all."""
    listed = list_configs()
    overlays = [name for name in listed if name.startswith("configs/interface/")]
    stacks = [
        [f"configs/{task.name}.yaml", f"configs/mini/{task.name}.yaml", f"configs/mini/quick/{task.name}.yaml"]
        for task in TASKS
    ]
    assert overlays
    assert sorted(listed) == sorted([*overlays, *(name for stack in stacks for name in stack)])
    for stack in stacks:
        full, small, quick = (check_blocks(load_config(stack[:depth]), strict=True) for depth in (1, 2, 3))
        assert quick.total_steps == small.total_steps < full.total_steps
        for overlay in overlays:
            config = load_config([*stack, overlay])
            assert check_blocks(config, strict=True) == quick
            assert interface_block(config)[0] == Path(overlay).stem


@pytest.mark.parametrize("task", [task.name for task in TASKS])
def test_a_mini_config_changes_places_and_steps_and_nothing_else(task):
    """So that mini-SUPERB runs what SUPERB runs. How many processes read is the machine's affair.

    The upstream is no setting of SUPERB's: the config's is what `-u` says where it is left out.
    """

    def leaves(block, *keys):
        if isinstance(block, dict):
            return {path: value for key in block for path, value in leaves(block[key], *keys, key).items()}
        return {keys: block}

    full = leaves(load_config([f"configs/{task}.yaml"]))
    mini = leaves(load_config([f"configs/{task}.yaml", f"configs/mini/{task}.yaml"]))
    assert mini.pop(("upstream",)) == "tiny_hubert"
    changed = {keys for keys in full.keys() | mini.keys() if full.get(keys) != mini.get(keys)}
    steps = {("runner", name) for name in ("total_steps", "log_step", "eval_step", "save_step")}
    places = {keys for keys, value in mini.items() if "mini_superb_data" in str(value)}
    assert places
    assert {keys for keys in changed - steps - places if keys[-1] != "num_workers"} == set()


# Interface


def test_interface_by_name_and_as_mapping():
    assert interface_block({}) == (None, {})
    assert interface_block({"interface": None}) == (None, {})
    assert interface_block({"interface": "hconv"}) == ("hconv", {})
    assert interface_block({"interface": {"name": "hconv", "kernel_size": 3}}) == ("hconv", {"kernel_size": 3})


@pytest.mark.parametrize("block", [3, ["hconv"], {"kernel_size": 3}, {"name": 3}])
def test_interface_that_is_neither(block):
    with pytest.raises(ConfigError, match="`interface` must be a name or a mapping with a `name`"):
        interface_block({"interface": block})


def test_options_can_be_laid_over_a_name(write):
    """``interface: hconv`` is short for a mapping, in whichever file."""
    name = write("name.yaml", "interface: hconv")
    options = write("options.yaml", "interface: {name: hconv, kernel_size: 3}")
    other = write("other.yaml", "interface: concat")
    assert interface_block(load_config([name, options])) == ("hconv", {"kernel_size": 3})
    assert interface_block(load_config([options, name])) == ("hconv", {"kernel_size": 3})
    assert interface_block(load_config([options, other])) == ("concat", {})
    assert interface_block(overridden("config.interface.kernel_size=7", load_config([name]))) == (
        "hconv",
        {"kernel_size": 7},
    )
    assert interface_block(overridden("config.interface=hconv,,config.interface.kernel_size=7")) == (
        "hconv",
        {"kernel_size": 7},
    )


@pytest.mark.parametrize(
    ("block", "chosen", "options"),
    [
        ({"name": "hconv", "kernel_size": 3}, "hconv", {"kernel_size": 3}),
        ({"name": "hconv", "kernel_size": 3}, "concat", {}),
        ("hconv", "hconv", {}),
        (None, "hconv", {}),
    ],
)
def test_interface_on_the_command_line(block, chosen, options):
    config = {"interface": block}
    set_interface(config, chosen)
    assert interface_block(config) == (chosen, options)


# -o


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0e-3", 1e-3),
        ("1e-4", 1e-4),
        ("-2E+3", -2000.0),
        ("5", 5),
        ("true", True),
        ("True", True),
        ("False", False),
        ("None", None),
        ("null", None),
        ("", None),
        ("[dev, test]", ["dev", "test"]),
        ("['dev', \"test\"]", ["dev", "test"]),
        ("[1e-4, 2]", [1e-4, 2]),
        ("{name: hconv, kernel_size: 3}", {"name": "hconv", "kernel_size": 3}),
        ("'5'", "5"),
        ('"None"', "None"),
        ("a/b/c.yaml", "a/b/c.yaml"),
        ("some words", "some words"),
        ("a=b=c", "a=b=c"),
        ("time", "time"),
        ("1e-4x", "1e-4x"),
    ],
)
def test_override_values(text, value):
    config = overridden(f"config.a.b={text}")
    assert config == {"a": {"b": value}}
    assert type(config["a"]["b"]) is type(value)


def test_nothing_is_evaluated(tmp_path):
    call = f"__import__('os').mkdir('{tmp_path / 'made'}')"
    assert overridden(f"config.a={call}") == {"a": call}
    with pytest.raises(ConfigError, match="not valid YAML"):
        overridden(f"config.a=!!python/object/apply:os.mkdir ['{tmp_path / 'made'}']")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["config.a=1,,config.b.c=2", " config.a = 1 ,, config.b.c=2 ,, ", ",,config.a=1,,config.b.c=2,,"]
)
def test_several_overrides(text):
    assert overridden(text, {"b": {"d": 3}}) == {"a": 1, "b": {"c": 2, "d": 3}}


def test_the_last_of_two_overrides_counts():
    assert overridden("config.a=1,,config.a=2") == {"a": 2}


@pytest.mark.parametrize("text", [None, "", "none", "None", " NONE "])
def test_no_overrides(text):
    assert overridden(text, {"a": 1}) == {"a": 1}


def test_override_of_arguments():
    args = RunArguments(mode="train", interface=["concat"])
    overridden(
        "args.seed=7,,args.expdir=a=b,,args.upstream_ckpt=None,,args.interface=hconv,,args.config=[a, b]", args=args
    )
    assert (args.seed, args.expdir, args.upstream_ckpt) == (7, "a=b", None)
    assert (args.interface, args.config) == (["hconv"], ["a", "b"])
    overridden("args.interface=None", args=args)
    assert args.interface == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runner.total_steps=3", "`-o runner.total_steps=3` must read `config.a.b=value` or `args.x=value`"),
        ("config.a", "`-o config.a` must read"),
        ("config=3", "`-o config=3` must read"),
        ("config..a=3", "`-o config..a=3` must read"),
        ("config.=3", "`-o config.=3` must read"),
        ("=3", "`-o =3` must read"),
        ("config.a=1,,total_steps", "`-o total_steps` must read"),
        ("args.sed=3", "Unknown argument in `-o`: 'sed'. Did you mean 'seed'?"),
        ("args.seed.x=3", "Unknown argument in `-o`: 'seed.x'. Did you mean 'seed'?"),
        ("args.seed=abc", "`args.seed` must be of type int, but is 'abc'."),
        ("args.upstream_trainable=3", "`args.upstream_trainable` must be of type bool, but is 3."),
        ("args.interface=3", "`args.interface[0]` must be of type str, but is 3."),
        ("config.list.a=1", "`-o config.list.a=1`: `list` is [1], not a block with keys of its own."),
        ("config.number.a.b=1", "`-o config.number.a.b=1`: `number` is 3, not a block with keys of its own."),
        ("config.a=[1, 2", "`-o config.a=[1, 2`: the value is not valid YAML:"),
    ],
)
def test_overrides_that_cannot_be(text, message):
    with pytest.raises(ConfigError) as error:
        overridden(text, {"list": [1], "number": 3})
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_override_over_an_empty_block():
    """``scheduler:`` alone is null in YAML, and stands for a block without keys."""
    assert overridden("config.scheduler.name=x", {"scheduler": None}) == {"scheduler": {"name": "x"}}


# Blocks


def test_runner_keys_are_s3prls_and_three():
    ours = {"bf16", "feature_cache", "tf32"}
    assert {entry.name for entry in dataclasses.fields(RunnerConfig)} == S3PRL_RUNNER_KEYS | ours


@pytest.mark.parametrize("key", sorted(S3PRL_RUNNER_KEYS))
def test_runner_keys_are_checked(key):
    with pytest.raises(ConfigError, match=rf"`runner\.{key}` must be (of type|a list)"):
        check_blocks(blocks(**{key: {"no": "type"}}), strict=True)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("total_steps", 0),
        ("total_steps", -1),
        ("gradient_clipping", 0),
        ("gradient_clipping", float("nan")),
        ("gradient_accumulate_steps", 0),
        ("log_step", 0),
        ("eval_step", -5),
        ("save_step", 0),
        ("max_keep", 0),
        ("evaluate_ratio", 0),
        ("evaluate_ratio", 1.5),
        ("evaluate_ratio", float("nan")),
    ],
)
def test_numbers_that_no_run_can_have(key, value):
    with pytest.raises(ConfigError, match=rf"`runner\.{key}` must be"):
        check_blocks(blocks(**{key: value}), strict=True)


def test_one_precision_at_a_time():
    assert check_blocks(blocks(fp16=True), strict=True).fp16
    assert check_blocks(blocks(bf16=True), strict=True).bf16
    with pytest.raises(ConfigError, match=r"`runner\.fp16` and `runner\.bf16` are both true: choose one"):
        check_blocks(blocks(fp16=True, bf16=True), strict=True)


def test_unknown_keys_name_the_nearest():
    with pytest.raises(ConfigError, match=r"key in `runner`: 'eval_steps'\. Did you mean 'eval_step'\?"):
        check_blocks(blocks(eval_steps=3), strict=True)
    with pytest.raises(ConfigError, match=r"top-level config key 'optimiser'\. Did you mean 'optimizer'\?"):
        check_blocks({**blocks(), "optimiser": {}}, strict=True)


def test_s3prls_tasks_may_have_keys_of_their_own():
    assert check_blocks({**blocks(), "eval_batch": 3}, strict=False).total_steps == 10


@pytest.mark.parametrize("block", ["runner", "optimizer", "downstream_expert"])
def test_a_missing_block_names_the_likely_slip(block):
    config = {key: value for key, value in blocks().items() if key != block}
    with pytest.raises(ConfigError, match=rf"no `{block}` block\. .*-c configs/<task>\.yaml YOUR\.yaml"):
        check_blocks(config, strict=False)


@pytest.mark.parametrize("value", [None, 3, [1]])
def test_a_runner_block_that_is_none(value):
    with pytest.raises(ConfigError, match="`runner"):
        check_blocks({**blocks(), "runner": value}, strict=True)


# Arguments

STORED = {
    "mode": "evaluate",
    "evaluate_split": "old-split",
    "override": "config.a=1",
    "backend": "gloo",
    "local_rank": 3,
    "past_exp": "old.ckpt",
    "auto_resume": True,
    "device": "cuda:5",
    "verbose": True,
    "downstream": "sid",
    "upstream": "hubert",
    "upstream_ckpt": "old.pt",
    "upstream_layer_selection": 4,
    "upstream_trainable": True,
    "expname": "old",
    "expdir": "old/dir",
    "seed": 5,
    "cache_dir": "old/cache",
    "downstream_variant": "fold2",
}
FROM_THE_COMMAND_LINE = (
    "mode",
    "evaluate_split",
    "override",
    "backend",
    "local_rank",
    "past_exp",
    "auto_resume",
    "device",
    "verbose",
)


def test_what_a_resumed_run_takes_from_its_checkpoint():
    new = RunArguments(
        mode="train", downstream="ic", upstream="wavlm", expdir="new", seed=1, device="cpu", past_exp="new.ckpt"
    )
    resumed = new.resumed_from(STORED)
    for key, value in STORED.items():
        expected = getattr(new, key) if key in FROM_THE_COMMAND_LINE else value
        assert getattr(resumed, key) == expected, key
    assert (new.seed, new.upstream) == (1, "wavlm")


def test_resumed_from_s3prls_own_arguments():
    """One config path or none, no interface, and keys that mean nothing here."""
    stored = vars(argparse.Namespace(**STORED, config="downstream/sid/config.yaml", hub="torch", of_old_times=1))
    resumed = RunArguments(mode="train", config=["new.yaml"], interface=["hconv"]).resumed_from(stored)
    assert resumed.config == ["downstream/sid/config.yaml"]
    assert resumed.interface == ["hconv"]
    assert resumed.upstream == "hubert"
    assert not hasattr(resumed, "of_old_times")
    assert resumed.resumed_from({"config": None}).config == []


def test_arguments_absent_from_the_checkpoint_keep_the_new_values():
    assert RunArguments(mode="train", seed=9, cache_dir="here").resumed_from({}) == RunArguments(
        mode="train", seed=9, cache_dir="here"
    )


def test_folder():
    assert RunArguments(mode="train", expname="a").folder == Path("result/downstream/a")
    assert RunArguments(mode="train", expname="a", expdir="b/c").folder == Path("b/c")
    with pytest.raises(ConfigError, match="`-n NAME` or a folder with `-p DIR`"):
        _ = RunArguments(mode="train").folder


# All of it


def test_precedence(tmp_path, monkeypatch, write):
    """The command line over YAML, the later file over the earlier, and defaults below all; seen in config.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("s3prl_interfaces.runner.logs.log_to_terminal", lambda verbose: None)  # it is for a process
    base = write(
        "base.yaml",
        "runner: {total_steps: 8, log_step: 9, eval_step: 9, eval_dataloaders: [dev, test]}\n"
        "optimizer: {name: TorchOptim, torch_optim_name: Adam, lr: 1}\n"
        "interface: {name: concat, normalize: true}\n"
        "downstream_expert: {}\n",
    )
    over = write("over.yaml", "runner: {total_steps: 6, eval_step: 3}")
    flags = ["-m", "train", "-d", "toytask", "-u", "tests.runner.toys:build", "-n", "x", "-c", base, over]
    overrides = "config.runner.total_steps=2,,config.runner.save_step=1,,config.optimizer.lr=1e-2"
    assert run_downstream([*flags, "--interface", "last_layer", "-o", overrides, "--device", "cpu"]) == 0
    config = yaml.safe_load((tmp_path / "result/downstream/x/config.yaml").read_text())
    assert config["runner"] == {
        "total_steps": 2,
        "log_step": 9,
        "eval_step": 3,
        "eval_dataloaders": ["dev", "test"],
        "save_step": 1,
    }
    assert config["optimizer"]["lr"] == 0.01
    assert config["interface"] == {"name": "last_layer"}


SMALL = """
runner: {total_steps: 1}
optimizer: {name: TorchOptim, torch_optim_name: Adam, lr: 1}
downstream_expert: {}
interface: weighted_sum
"""


@pytest.fixture
def run_small(tmp_path, monkeypatch, write):
    """A run of one step from the command line; returns its folder."""
    monkeypatch.setattr("s3prl_interfaces.runner.logs.log_to_terminal", lambda verbose: None)
    config = write("small.yaml", SMALL)

    def run_small(name, *flags):
        flags = [
            "-m",
            "train",
            "-d",
            "toytask",
            "-u",
            "tests.runner.toys:build",
            "--device",
            "cpu",
            "-c",
            config,
            *flags,
        ]
        assert run_downstream([*flags, "-p", str(tmp_path / name)]) == 0
        return tmp_path / name

    return run_small


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--interface", "hconv", "-o", "config.interface.kernel_size=3"], {"name": "hconv", "kernel_size": 3}),
        (["--interface", "hconv", "-o", "config.interface=concat"], {"name": "concat"}),
        (["-o", "args.interface=concat"], {"name": "concat"}),
        (["--interface", "concat", "-o", "args.interface=last_layer"], {"name": "last_layer"}),
    ],
)
def test_override_counts_more_than_interface_flag(flags, expected, run_small):
    folder = run_small("x", *flags)
    assert yaml.safe_load((folder / "config.yaml").read_text())["interface"] == expected


def test_a_moved_run_continues_where_it_is(run_small):
    old = run_small("old")
    new = old.rename(old.with_name("new"))
    run_small("new", "-a", "-o", "config.runner.total_steps=2")
    assert (new / "states-2.ckpt").is_file()
    assert not old.exists()
