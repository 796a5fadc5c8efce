"""What is probed for: utterances with their classes, split into training and test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from downstream_tasks.audio import load_audio
from downstream_tasks.ic.dataset import read_split
from downstream_tasks.sid.dataset import read_metadata
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb import fluent_speech_commands, make_mini_superb, voxceleb1

HOP = 320
"""Samples (16 kHz) from a frame to the next: 50 frames a second."""
WINDOW = 400
"""Samples that a frame covers: HuBERT's frame t covers ``320 t`` to ``320 t + 400``, as a 25 ms filterbank's."""


def frame_count(samples: int) -> int:
    """Frames of so many samples, at least :data:`WINDOW`."""
    return 1 + (samples - WINDOW) // HOP


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
    return _utterance_task(
        "speaker",
        # A group is a video, one occasion.
        {
            split: [(recording.path, recording.speaker, str(recording.path.parent)) for recording in splits[split]]
            for split in ("train", "test")
        },
    )


def speaker_frame_task(data: Path, scale: float = 1.0) -> ProbeTask:
    """The speaker in every single frame, of a third of :func:`speaker_task`'s training data and of its whole test.

    So van den Oord et al. (2018, arXiv 1807.03748, section 3.1) probe for speakers. A frame of a spectrum shows a
    phoneme more than a voice; what a model adds is what it remembers of the rest. In a mean over time of a clean
    synthetic voice the spectrum alone shows nearly all.

    Args and errors: as :func:`speaker_task`.
    """
    task = speaker_task(data, scale)

    def by_frame(utterance: Utterance) -> Utterance:
        return replace(utterance, labels=utterance.labels.repeat(frame_count(len(utterance.wav()))))

    train, test = (list(map(by_frame, utterances)) for utterances in (task.train[::3], task.test))
    return ProbeTask("speaker-frame", "frames", task.classes, train, test)


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
    return _utterance_task(
        "intent",
        # A group is a speaker.
        {
            split: [
                (command.path, " ".join(command.values), command.path.parent.name)
                for command in read_split(root, split)
            ]
            for split in ("train", "test")
        },
    )


def _utterance_task(name: str, splits: Mapping[str, Sequence[tuple[Path, str, str]]]) -> ProbeTask:
    """A task of whole files; of each its path, its class and its group."""
    classes = sorted({label for _, label, _ in splits["train"]})
    train, test = (
        [Utterance(path, _index(classes, label, path), group) for path, label, group in splits[split]]
        for split in ("train", "test")
    )
    return ProbeTask(name, "utterances", classes, train, test)


def _corpus(data: Path, name: str, directory: str, scale: float) -> Path:
    if not (data / directory).exists():
        make_mini_superb(data, corpora=[name], scale=scale)
    return data / directory


def _index(classes: Sequence[str], name: str, path: Path) -> NDArray[np.int64]:
    if name not in classes:
        raise DataError(f"{path}: its class, {name!r}, does not occur in the training split.")
    return np.array([classes.index(name)])
