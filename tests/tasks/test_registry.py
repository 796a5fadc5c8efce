"""Tasks by SUPERB's and by S3PRL's name."""

import pytest

from downstream_tasks.registry import TASKS, canonical_name, default_config, is_ours, load_expert, load_prepare
from s3prl_interfaces.errors import ConfigError

SUPERB = {  # SUPERB's abbreviation: S3PRL's name (s3prl/docs/superb.md)
    "asr": "asr",
    "pr": "ctc",
    "ks": "speech_commands",
    "sid": "voxceleb1",
    "er": "emotion",
    "ic": "fluent_commands",
    "sf": "ctc",
    "sv": "sv_voxceleb1",
}


def corpus(name):
    return {"downstream_expert": {"corpus": {"name": name}}}


def test_the_names_are_superbs_and_s3prls():
    assert {task.name: task.s3prl_name for task in TASKS} == SUPERB


@pytest.mark.parametrize("name", [*SUPERB, *(name for name in SUPERB.values() if name != "ctc")])
def test_each_task_is_there_by_both_names(name):
    expert = load_expert(name)
    assert expert.__module__ == f"downstream_tasks.{canonical_name(name, {})}.expert"
    assert default_config(name) == f"configs/{canonical_name(name, {})}.yaml"
    assert callable(load_prepare(name))


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (corpus("libriphone"), "pr"),
        (corpus("LibriPhone"), "pr"),
        (corpus("snips"), "sf"),
        (corpus("common_voice"), "ctc"),
        ({"downstream_expert": {"corpus": None}}, "ctc"),
        ({"downstream_expert": 3}, "ctc"),
        ({}, "ctc"),
    ],
)
def test_ctc_is_what_its_corpus_says(config, name):
    """S3PRL's one task `ctc` is PR with libriphone.yaml and SF with snips.yaml; with others it stays S3PRL's own."""
    assert canonical_name("ctc", config) == name
    assert not is_ours("ctc")


def test_ctc_alone_says_nothing():
    with pytest.raises(ConfigError, match=r"name `-d pr` or `-d sf`, or give its config"):
        default_config("ctc")


def test_unknown_names():
    for load in (load_expert, load_prepare):
        with pytest.raises(ConfigError, match=r"Unknown task 'fluent_comands'\. Did you mean 'fluent_commands'"):
            load("fluent_comands")
