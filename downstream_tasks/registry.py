"""Tasks by name: ours by SUPERB's and by S3PRL's name, and S3PRL's own."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.s3prl_compat import prepare


@dataclass(frozen=True)
class Task:
    """One task of ours."""

    name: str
    """SUPERB's abbreviation, our folder and config name."""
    s3prl_name: str
    """What S3PRL calls it (``-d``)."""
    description: str


TASKS = (
    Task("pr", "ctc", "phoneme recognition, LibriSpeech, phone error rate"),
    Task("asr", "asr", "speech recognition, LibriSpeech, word error rate without a language model"),
    Task("ks", "speech_commands", "keyword spotting, Speech Commands v0.01, accuracy"),
    Task("ic", "fluent_commands", "intent classification, Fluent Speech Commands, accuracy"),
    Task("sid", "voxceleb1", "speaker identification, VoxCeleb1, accuracy"),
    Task("er", "emotion", "emotion recognition, IEMOCAP, accuracy"),
    Task("sf", "ctc", "slot filling, Audio SNIPS, slot-type F1 and slot-value CER"),
    Task("sv", "sv_voxceleb1", "speaker verification, VoxCeleb1, equal error rate"),
)

_CORPORA_OF_CTC = {"libriphone": "pr", "snips": "sf"}
"""S3PRL has one task `ctc` for several of SUPERB's, told apart by the config's ``downstream_expert.corpus.name``."""

_BY_NAME = {name: task for task in TASKS for name in (task.name, task.s3prl_name) if name != "ctc"}


def is_ours(name: str) -> bool:
    """Whether the task is one of ours, by either name."""
    return name in _BY_NAME


def canonical_name(name: str, config: Mapping[str, Any]) -> str:
    """SUPERB's name of a task of ours; S3PRL's own tasks keep theirs.

    Args:
        name: as given to ``-d``.
        config: the merged config; S3PRL's ``ctc`` is ``pr`` or ``sf`` by its corpus, or S3PRL's own with another one.
    """
    if name == "ctc":
        block = config.get("downstream_expert")
        corpus = block.get("corpus") if isinstance(block, Mapping) else None
        corpus_name = corpus.get("name") if isinstance(corpus, Mapping) else None
        return _CORPORA_OF_CTC.get(str(corpus_name).lower(), name)
    return _BY_NAME[name].name if name in _BY_NAME else name


def default_config(name: str | None) -> str:
    """The config that a task runs with when none is given.

    Raises:
        ConfigError: there is none: no task is named, or it is S3PRL's own.
    """
    if name is None:
        raise ConfigError("Which task? Give it with `-d NAME` (see `s3prl-interfaces list tasks`).")
    if name == "ctc":
        raise ConfigError(
            "S3PRL's `ctc` is two of SUPERB's tasks: name `-d pr` or `-d sf`, or give its config by `-c`."
        )
    load_expert(name)  # an unknown name is the likelier mistake
    if not is_ours(name):
        raise ConfigError(f"S3PRL's task `{name}` needs its config: give it with `-c FILE.yaml`.")
    return f"configs/{_BY_NAME[name].name}.yaml"


def load_expert(name: str) -> type[nn.Module]:
    """The ``DownstreamExpert`` class of a task.

    Raises:
        ConfigError: no task of ours or of S3PRL's has this name, or S3PRL's cannot be imported.
    """
    if is_ours(name):
        module = f"downstream_tasks.{_BY_NAME[name].name}.expert"
        return importlib.import_module(module).DownstreamExpert
    prepare()
    module = f"s3prl.downstream.{name}.expert"
    if not name.isidentifier() or importlib.util.find_spec(f"s3prl.downstream.{name}") is None:
        raise ConfigError(unknown_name("task", name, _BY_NAME) + " S3PRL's own tasks can be named too.")
    try:
        return importlib.import_module(module).DownstreamExpert
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"S3PRL's task `{name}` cannot be imported: {error}.") from error


def load_prepare(name: str) -> Callable[[Path], list[str]]:
    """The function that checks and prepares the corpus of a task of ours.

    Raises:
        ConfigError: no task of ours has this name.
    """
    if not is_ours(name):
        raise ConfigError(unknown_name("task", name, _BY_NAME))
    return importlib.import_module(f"downstream_tasks.{_BY_NAME[name].name}.prepare").prepare
