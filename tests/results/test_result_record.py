from datetime import date
from pathlib import Path

import pytest

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.results import Primary, RunResult, config_sha256


def test_label_names_the_options_in_order(make_result):
    assert make_result(interface="hconv").label == "hconv"
    options = {"stride": 2, "kernel_size": 3, "mode": "max", "bias": True}
    label = make_result(interface="hconv", interface_options=options).label
    assert label == 'hconv(bias=true, kernel_size=3, mode="max", stride=2)'


def test_options_that_differ_in_type_only_are_different_runs(make_result):
    number = make_result(interface_options={"layer": 3})
    string = make_result(interface_options={"layer": "3"})
    assert number.identity != string.identity


@pytest.mark.parametrize(
    "change",
    [
        {"task": "er"},
        {"upstream": "x"},
        {"interface": "x"},
        {"seed": 2},
        {"data_seed": 2},
        {"learning_rate": 1e-3},
        {"fold": "fold2"},
    ],
)
def test_identity_tells_runs_apart(make_result, change):
    assert make_result(**change).identity != make_result().identity
    assert make_result(0.9).identity == make_result().identity


PRIMARY = {"name": "acc", "split": "test", "value": 0.5, "higher_is_better": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": " "}, "`task` must be a non-empty string, but is ' '"),
        ({"upstream": ""}, "`upstream` must be a non-empty string, but is ''"),
        ({"interface": None}, "`interface` must be a non-empty string, but is None"),
        ({"fold": ""}, "`fold` must be a non-empty string or null, but is ''"),
        ({"seed": 1.5}, "`seed` must be a whole number, but is 1.5"),
        ({"seed": True}, "`seed` must be a whole number, but is True"),
        ({"interface_options": [3]}, "`interface_options` must be a mapping from names, but is [3]"),
        ({"interface_options": {3: 1}}, "`interface_options` must be a mapping from names, but is {3: 1}"),
        ({"interface_options": {"a": float("inf")}}, "`interface_options` must be values that JSON can hold"),
        ({"protocol": [3]}, "`protocol` must be a mapping from names, but is [3]"),
        ({"protocol": {"a": float("nan")}}, "`protocol` must be values that JSON can hold"),
        ({"interface_options": {"a": {1}}}, "`interface_options` must be values that JSON can hold"),
        ({"metrics": {}}, "`metrics` must be a mapping of at least one split, but is {}"),
        ({"metrics": {"test": 3}}, "`metrics.test` must be a mapping, but is 3"),
        (
            {"metrics": {"test": {"acc": float("nan"), "step": 1}}},
            "`metrics.test.acc` must be a finite number, but is nan",
        ),
        (
            {"metrics": {"test": {"acc": 0.5}}},
            "`metrics.test.step` must be a whole number of 0 or more, but is None",
        ),
        (
            {"metrics": {"dev": {"acc": 0.5, "step": 1}}},
            "`primary` must be one of `metrics`, but 'test' has no 'acc' there",
        ),
        (
            {"primary": Primary(**{**PRIMARY, "name": "wer"})},
            "`primary` must be one of `metrics`, but 'test' has no 'wer' there",
        ),
        (
            {"primary": Primary(**{**PRIMARY, "value": 0.6})},
            "`primary.value` must be `metrics.test.acc` = 0.5, but is 0.6",
        ),
        (
            {"primary": Primary(**{**PRIMARY, "higher_is_better": 1})},
            "`primary.higher_is_better` must be true or false, but is 1",
        ),
        (
            {"selection": Primary(**{**PRIMARY, "split": "dev"})},
            "`selection` must be one of `metrics`, but 'dev' has no 'acc' there",
        ),
        (
            {"selection": Primary(**{**PRIMARY, "value": 0.6})},
            "`selection.value` must be `metrics.test.acc` = 0.5, but is 0.6",
        ),
        (
            {"selection": {"name": "acc"}},
            "`selection` must have `name`, `split`, `value` and `higher_is_better`, but is {'name': 'acc'}",
        ),
        ({"data_seed": 0.5}, "`data_seed` must be a whole number or null, but is 0.5"),
        ({"learning_rate": -1}, "`learning_rate` must be a finite number of 0 or more, or null, but is -1"),
        ({"macs_per_second": 0.5}, "`macs_per_second` must be a whole number of 0 or more, or null, but is 0.5"),
        ({"parameters": {"downstream": 3}}, "`parameters` must name `interface`"),
        ({"parameters": 3}, "`parameters` must be a mapping, but is 3"),
        (
            {"parameters": {"interface": -1}},
            "`parameters.interface` must be a whole number of 0 or more, but is -1",
        ),
        ({"seconds": {"train": -0.1}}, "`seconds.train` must be a finite number of 0 or more, but is -0.1"),
        (
            {"peak_memory_bytes": 0.5},
            "`peak_memory_bytes` must be a whole number of 0 or more, or null, but is 0.5",
        ),
        ({"versions": {"torch": ""}}, "`versions.torch` must be a non-empty string, but is ''"),
        ({"config_sha256": "a1"}, "`config_sha256` must be 64 hexadecimal digits, but is 'a1'"),
        ({"counts": {"test": -1}}, "`counts.test` must be a whole number of 0 or more, but is -1"),
    ],
)
def test_what_is_wrong_is_said(make_result, change, message):
    with pytest.raises(ValueError, match="must") as caught:
        make_result(**change).validate()
    assert message in str(caught.value)


def test_all_problems_are_said_at_once(make_result):
    with pytest.raises(ValueError, match=r"`task`.*; `seed`"):
        make_result(task="", seed="1").validate()


def test_unknown_keys_are_ignored(make_result):
    data = make_result().to_json()
    data["carbon"] = 3
    data["primary"]["unit"] = "fraction"
    assert RunResult.from_json(data) == make_result()


def test_what_chose_the_weights_comes_back(make_result):
    chosen = Primary(name="acc", split="dev", value=0.25, higher_is_better=True)
    metrics = {"dev": {"acc": 0.25, "step": 10}, "test": {"acc": 0.5, "step": 10}}
    result = make_result(metrics=metrics, selection=chosen, learning_rate=1e-3, data_seed=3, macs_per_second=50)
    assert RunResult.from_json(result.to_json()) == result
    data = result.to_json()
    del data["selection"]["split"]
    with pytest.raises(ValueError, match="`selection` must have"):
        RunResult.from_json(data)


def test_keys_with_a_default_may_be_missing(make_result):
    data = make_result().to_json()
    for key in ("interface_options", "protocol", "fold", "seconds", "peak_memory_bytes", "versions", "counts"):
        del data[key]
    assert RunResult.from_json(data) == make_result()


CONFIG = {"runner": {"total_steps": 10, "lr": 0.1}, "interface": {"name": "hconv"}, "seed": 1}


def test_config_hash_is_that_of_the_canonical_json():
    # sha256 of {"runner":{"lr":0.1,"total_steps":10}}
    assert config_sha256(CONFIG) == "fcce9f7e293d6b5f318e64df455485fb28c116e335c829e8d0978a5d476e3192"


def test_config_hash_leaves_out_interface_and_seed_only():
    assert config_sha256({**CONFIG, "interface": "concat", "seed": 2}) == config_sha256(CONFIG)
    assert config_sha256({"runner": CONFIG["runner"]}) == config_sha256(CONFIG)
    rates = [config_sha256({**CONFIG, "optimizer": {"name": "Adam", "lr": lr}}) for lr in (1e-3, 1e-4)]
    assert rates[0] == rates[1] == config_sha256({**CONFIG, "optimizer": {"name": "Adam"}}) != config_sha256(CONFIG)
    assert config_sha256({**CONFIG, "runner": {"total_steps": 11, "lr": 0.1}}) != config_sha256(CONFIG)
    assert config_sha256({**CONFIG, "runner": {**CONFIG["runner"], "seed": 3}}) != config_sha256(CONFIG)


def test_config_hash_takes_what_yaml_gives():
    config = {1: "a", "b": (1, 2), "day": date(2024, 1, 2), "root": Path("data")}
    assert config_sha256(config) == config_sha256({"root": "data", "day": "2024-01-02", "b": [1, 2], "1": "a"})


def test_config_hash_refuses_objects():
    with pytest.raises(ConfigError, match=r"must be one that YAML can hold, but is \{1\} \(set\)"):
        config_sha256({"a": [{1}]})
