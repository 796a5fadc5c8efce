"""What is probed for: utterances with their classes, split into training and test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downstream_tasks.audio import load_audio
from downstream_tasks.ic.dataset import Command, read_split
from downstream_tasks.sid.dataset import Utterance as Recording
from downstream_tasks.sid.dataset import read_metadata
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb import fluent_speech_commands, make_mini_superb, voxceleb1


@dataclass(frozen=True)
class Utterance:
    """One recording.

    Attributes:
        sound: An audio file, or samples (samples,), int16, at 16 kHz.
        labels: Classes, int64: one a frame, (frames,), or one of the whole, (1,).
        group: What it has in common with others, such as its speaker: a group is never split between the data that
            a probe is fitted on and the data that its settings are chosen on.
    """

    sound: Path | NDArray[np.int16]
    labels: NDArray[np.int64]
    group: str

    def wav(self) -> Tensor:
        """The samples (samples,), float32 in [-1, 1].

        Raises:
            DataError: If the file is missing or cannot be decoded.
        """
        if isinstance(self.sound, Path):
            return torch.from_numpy(load_audio(self.sound))
        return torch.from_numpy(self.sound.astype(np.float32) / 32768)


@dataclass(frozen=True)
class ProbeTask:
    """Something that a hidden state may tell.

    Attributes:
        name: Such as ``phoneme``.
        unit: What is classified: ``frames``, or ``utterances`` (by the mean over time).
        classes: Their names.
        train: To fit probes and to choose their settings.
        test: To score them, and for nothing else.
    """

    name: str
    unit: str
    classes: Sequence[str]
    train: Sequence[Utterance]
    test: Sequence[Utterance]

    @property
    def by_frame(self) -> bool:
        """Whether each frame has a class of its own."""
        return self.unit == "frames"


def speaker_task(data: Path, scale: float = 1.0) -> ProbeTask:
    """Speakers of mini VoxCeleb1 by SID's own splits: the test is of the same speakers on other occasions.

    Args:
        data: Directory of mini-SUPERB; the corpus is made there if it is missing.
        scale: Size of a corpus that is made.

    Raises:
        DataError: If the corpus cannot be read.
        UserError: If it is to be made and the extra ``mini`` is not installed.
    """
    root = _corpus(data, voxceleb1.NAME, voxceleb1.DIRECTORY, scale)
    splits = read_metadata(root / voxceleb1.METADATA, root)
    speakers = sorted({recording.speaker for recording in splits["train"]})

    def utterance(recording: Recording) -> Utterance:
        label = _index(speakers, recording.speaker, recording.path)
        return Utterance(recording.path, label, str(recording.path.parent))  # the video

    train, test = ([utterance(recording) for recording in splits[split]] for split in ("train", "test"))
    return ProbeTask("speaker", "utterances", speakers, train, test)


def intent_task(data: Path, scale: float = 1.0) -> ProbeTask:
    """Intents (action, object and location together) of mini Fluent Speech Commands; the test has other speakers.

    Args:
        data: Directory of mini-SUPERB; the corpus is made there if it is missing.
        scale: Size of a corpus that is made.

    Raises:
        DataError: If the corpus cannot be read.
        UserError: If it is to be made and the extra ``mini`` is not installed.
    """
    root = _corpus(data, fluent_speech_commands.NAME, fluent_speech_commands.DIRECTORY, scale)
    splits = {split: read_split(root, split) for split in ("train", "test")}
    intents = sorted({" ".join(command.values) for command in splits["train"]})

    def utterance(command: Command) -> Utterance:
        label = _index(intents, " ".join(command.values), command.path)
        return Utterance(command.path, label, command.path.parent.name)  # the speaker

    train, test = ([utterance(command) for command in splits[split]] for split in ("train", "test"))
    return ProbeTask("intent", "utterances", intents, train, test)


def _corpus(data: Path, name: str, directory: str, scale: float) -> Path:
    if not (data / directory).exists():
        make_mini_superb(data, corpora=[name], scale=scale)
    return data / directory


def _index(classes: Sequence[str], name: str, path: Path) -> NDArray[np.int64]:
    if name not in classes:
        raise DataError(f"{path}: its class, {name!r}, does not occur in the training split.")
    return np.array([classes.index(name)])
