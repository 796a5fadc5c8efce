"""Fluent Speech Commands: ``data/{train,valid,test}_data.csv`` and the wavs that they name."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downstream_tasks.audio import load_audio
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from s3prl_interfaces.errors import DataError

SLOTS = ("action", "object", "location")
FILES = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}


@dataclass(frozen=True)
class Command:
    """One row of a csv file."""

    path: Path
    values: tuple[str, ...]
    """Of the slots, in their order."""


def read_split(root: Path, split: str) -> list[Command]:
    """Read the commands of ``train``, ``dev`` or ``test``.

    Read as text, not with pandas: its defaults turn words such as ``null`` into missing values.

    Raises:
        DataError: the corpus, the file or one of its columns is missing, or it holds no row.
    """
    path = root / "data" / FILES[split]
    if not path.is_file():
        raise DataError(
            f"{path} does not exist. `downstream_expert.datarc.file_path` must be the folder of Fluent Speech Commands "
            "that holds data/ and wavs/; `s3prl-interfaces mini-superb DIR` makes a small one to try."
        )
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # as pandas, past a byte order mark
            reader = csv.DictReader(file)
            missing = [column for column in ("path", *SLOTS) if column not in (reader.fieldnames or ())]
            if missing:
                raise DataError(f"{path} has no column {', '.join(missing)}.")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    for number, row in enumerate(rows, start=2):
        if not all(row[column] for column in ("path", *SLOTS)):
            raise DataError(f"{path}, line {number}: a value is missing.")
    if not rows:
        raise DataError(f"{path} holds no command.")
    return [Command(root / row["path"], tuple(row[slot] for slot in SLOTS)) for row in rows]


def labels_of(commands: Sequence[Command]) -> Labels:
    """The values of each slot in the order in which the training split shows them, as in S3PRL: 6, 14 and 4."""
    columns = zip(*(command.values for command in commands), strict=True)
    return Labels({slot: list(dict.fromkeys(column)) for slot, column in zip(SLOTS, columns, strict=True)})


def encode(command: Command, labels: Labels) -> np.ndarray:
    """The ids of a command's values, (3,) int64.

    Raises:
        DataError: a value that the training split does not have.
    """
    try:
        return labels.encode(command.values)
    except KeyError as error:
        slot, value = error.args
        raise DataError(f"{command.path}: {slot} {value!r} does not occur in {FILES['train']}.") from error


class FluentCommandsDataset(AudioDataset):
    """Utterances of one split: ``(wav, label, name)``, as S3PRL's (``s3prl/downstream/fluent_commands/dataset.py``).

    ``wav`` is (samples,) float32 at 16 kHz, ``label`` (3,) int64, ``name`` the file's stem.
    """

    def __init__(self, commands: Sequence[Command], labels: Labels) -> None:
        self.commands = commands
        self.labels = [encode(command, labels) for command in commands]

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.commands)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.commands[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one utterance."""
        path = self.commands[index].path
        return load_audio(path), self.labels[index], path.stem
