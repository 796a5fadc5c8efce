"""LibriSpeech for speech recognition: lengths, S3PRL's tables of them, batches, and transcripts as characters."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from downstream_tasks.asr.text import EOS, Characters, UnknownCharacterError
from downstream_tasks.audio import load_audio
from downstream_tasks.lengths import audio_lengths
from downstream_tasks.librispeech import LibriSpeech, Utterance
from downstream_tasks.loading import AudioDataset
from s3prl_interfaces.errors import DataError

HALVED_ABOVE = 2000
"""S3PRL halves a batch with an utterance of more samples than this, which all have: it was meant as frames (D20)."""


_MOST_DIGITS = 18
"""Of a length: Python refuses to read thousands."""


@dataclass(frozen=True)
class MeasuredUtterance(Utterance):
    """One utterance and how long it is."""

    length: int
    """In samples; 0 where it could not be told."""


def read_split(
    root: Path, sets: Sequence[str], characters: Characters, bucket: Path | None = None, skip_bad_audio: bool = False
) -> list[MeasuredUtterance]:
    """The utterances of some sets, the longest first.

    Args:
        root: the folder that holds train-clean-100, dev-clean, ...
        sets: their names.
        characters: that transcripts may have.
        bucket: the folder of S3PRL's tables ``<set>.csv``, which say what is used and how long it is; without it, all
            audio of the sets is used, and measured.
        skip_bad_audio: see :meth:`~downstream_tasks.librispeech.LibriSpeech.check` and
            :func:`~downstream_tasks.lengths.audio_lengths`.

    Raises:
        DataError: a set or a table is missing, audio has no transcript or a transcript no audio (S3PRL leaves both out
            in silence), a transcript has an unknown character, or audio cannot be read. All that is wrong with the
            transcripts is in one message.
    """
    corpus = LibriSpeech(root)
    tables = [None if bucket is None else read_table(bucket / f"{name}.csv") for name in sets]
    found = [read_set(corpus, name, characters, table) for name, table in zip(sets, tables, strict=True)]
    corpus.check(skip_bad_audio=skip_bad_audio)
    measured = []
    for utterances, table in zip(found, tables, strict=True):
        files = [one.file for one in utterances]
        lengths = (
            [table[file] for file in files] if table else audio_lengths(root, files, skip_bad_audio=skip_bad_audio)
        )
        measured += [MeasuredUtterance(**vars(one), length=n) for one, n in zip(utterances, lengths, strict=True)]
    return sorted(measured, key=lambda utterance: utterance.length, reverse=True)


def read_set(
    corpus: LibriSpeech, name: str, characters: Characters, table: dict[str, int] | None = None
) -> list[Utterance]:
    """The utterances of a set; what is wrong with it is noted in ``corpus``.

    Args:
        corpus: LibriSpeech.
        name: of the set.
        characters: that transcripts may have.
        table: what :func:`read_table` gave: only these files are wanted.
    """
    utterances = corpus.read(name, table)
    for utterance in utterances:
        try:
            characters.encode(utterance.text)
        except UnknownCharacterError as error:
            corpus.wrong.append(f"{utterance.where} has {error}")
    return utterances


def read_table(path: Path) -> dict[str, int]:
    """Lengths in samples by audio file, from a table of S3PRL's ``preprocess/generate_len_for_bucket.py``.

    Raises:
        DataError: the table is missing or malformed.
    """
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.datarc.bucket_file` must hold a table for each set; "
            "`s3prl-interfaces prepare asr LIBRISPEECH` writes them, and null does without."
        ) from error
    lengths = {}
    for number, row in enumerate(rows, start=2):
        file, length = row.get("file_path"), row.get("length")
        if not file or not length or not length.isdecimal() or len(length) > _MOST_DIGITS:
            raise DataError(f"{path}, line {number}: needs a `file_path` and a `length` in samples, but is {row}.")
        lengths[file] = int(length)
    if not lengths:
        raise DataError(f"{path} lists no audio.")
    return lengths


def groups_of(lengths: Sequence[int], batch_size: int, halve: bool) -> list[list[int]]:
    """Batches of consecutive utterances, each utterance once.

    Args:
        lengths: of the utterances in samples, the longest first.
        batch_size: of how many; the last batch may have fewer. S3PRL drops it if it has one (D20).
        halve: cut a whole batch in two if it has an utterance of more than :data:`HALVED_ABOVE` samples, as S3PRL.
    """
    groups = []
    for start in range(0, len(lengths), batch_size):
        group = list(range(start, min(start + batch_size, len(lengths))))
        if halve and len(group) == batch_size > 1 and lengths[start] > HALVED_ABOVE:
            groups += [group[: batch_size // 2], group[batch_size // 2 :]]
        else:
            groups.append(group)
    return groups


class TranscribedDataset(AudioDataset):
    """Utterances of one split: ``(wav, target, name)``.

    Args:
        utterances: of the split.
        characters: that they are transcribed with.
        eos_in_targets: a target ends with ``</s>``.
    """

    def __init__(self, utterances: Iterable[MeasuredUtterance], characters: Characters, eos_in_targets: bool) -> None:
        self.utterances = list(utterances)
        self.characters = characters
        self.end = [EOS] if eos_in_targets else []

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.utterances[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one utterance: (samples,) float32 at 16 kHz, (characters,) int64, its name."""
        utterance = self.utterances[index]
        target = np.array(self.characters.encode(utterance.text) + self.end)
        return load_audio(utterance.path), target, utterance.path.stem
