"""LibriSpeech: ``<set>/<speaker>/<chapter>/<speaker>-<chapter>-<n>.flac`` and a ``.trans.txt`` in each chapter."""

import csv
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from torch.utils.data import Dataset

from downstream_tasks.asr.text import EOS, Characters, UnknownCharacterError
from downstream_tasks.audio import load_audio
from downstream_tasks.layout import refuse
from downstream_tasks.lengths import audio_lengths
from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".flac", ".wav")
"""LibriSpeech has FLAC; converted copies have WAV."""
HALVED_ABOVE = 2000
"""S3PRL halves a batch with an utterance of more samples than this, which all have: it was meant as frames (D20)."""


@dataclass(frozen=True)
class Utterance:
    """One utterance of a set."""

    file: str
    """The audio's path below the corpus."""
    text: str
    length: int
    """In samples; 0 where it could not be told."""

    @property
    def name(self) -> str:
        """``<speaker>-<chapter>-<n>``."""
        return PurePosixPath(self.file).stem


def read_split(
    root: Path, sets: Sequence[str], characters: Characters, bucket: Path | None = None, skip_bad_audio: bool = False
) -> list[Utterance]:
    """The utterances of some sets, the longest first.

    Args:
        root: the folder that holds train-clean-100, dev-clean, ...
        sets: their names.
        characters: that transcripts may have.
        bucket: the folder of S3PRL's tables ``<set>.csv``, which say what is used and how long it is; without it, all
            audio of the sets is used, and measured.
        skip_bad_audio: see :func:`~downstream_tasks.lengths.audio_lengths`.

    Raises:
        DataError: a set or a table is missing, audio has no transcript or a transcript no audio (S3PRL leaves both out
            in silence), a transcript has an unknown character, or audio cannot be read. All that is wrong with the
            transcripts is in one message.
    """
    utterances, problems = [], []
    for name in sets:
        table = None if bucket is None else read_table(bucket / f"{name}.csv")
        texts, wrong = read_set(root, name, characters, table)
        problems += wrong
        if not wrong:
            lengths = table or dict(
                zip(texts, audio_lengths(root, list(texts), skip_bad_audio=skip_bad_audio), strict=True)
            )
            utterances += [Utterance(file, text, lengths[file]) for file, text in texts.items()]
    refuse(root, problems)
    return sorted(utterances, key=lambda utterance: utterance.length, reverse=True)


def read_set(
    root: Path, name: str, characters: Characters, table: dict[str, int] | None = None
) -> tuple[dict[str, str], list[str]]:
    """Transcripts of a set by their audio file, and what is wrong with the set, a phrase for each.

    Args:
        root: of the corpus.
        name: of the set.
        characters: that transcripts may have.
        table: what :func:`read_table` gave: only these files are wanted.
    """
    if not (root / name).is_dir():
        return {}, [f"it has no folder {name}"]
    if table is None:
        chapters = sorted(path.relative_to(root).as_posix() for path in (root / name).glob("*/*") if path.is_dir())
    else:
        chapters = sorted({str(PurePosixPath(file).parent) for file in table})
    texts: dict[str, str] = {}
    problems = []
    for chapter in chapters:
        found, wrong = _read_chapter(root, chapter, characters)
        texts.update(found)
        problems += wrong
    if table is not None:
        problems += [f"{file} is not there, but in the table of {name}" for file in table if file not in texts]
        if left_out := len(texts) - len(table) if not problems else 0:
            log.warning("%d utterances of %s are not in its table, and are not used.", left_out, name)
        texts = {file: texts[file] for file in table if file in texts}
    if not texts and not problems:
        problems.append(f"{name} has no utterance <speaker>/<chapter>/<speaker>-<chapter>-<n>.flac")
    return texts, problems


def _read_chapter(root: Path, chapter: str, characters: Characters) -> tuple[dict[str, str], list[str]]:
    folder = PurePosixPath(chapter)
    transcript = f"{chapter}/{folder.parent.name}-{folder.name}.trans.txt"
    try:
        audio = {path.stem: path.name for path in sorted((root / chapter).iterdir()) if path.suffix in SUFFIXES}
        lines = (root / transcript).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        return {}, [f"{transcript} {reason}"]
    texts: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, _, text = line.strip().partition(" ")
        where = f"{transcript}, line {number}"
        if not name:
            continue
        if name in texts:
            problems.append(f"{where} transcribes {name} once more")
        if name not in audio:
            problems.append(f"{where}: there is no audio {name}.flac")
        try:
            characters.encode(text)
        except UnknownCharacterError as error:
            problems.append(f"{where} has {error}")
        texts[name] = text
    problems += [
        f"{chapter}/{file} has no transcript in {transcript}" for name, file in audio.items() if name not in texts
    ]
    return {f"{chapter}/{file}": texts[name] for name, file in audio.items() if name in texts}, problems


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
        if not file or not length or not length.isdecimal():
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


class TranscribedDataset(Dataset):
    """Utterances of one split: ``(wav, target, name)``.

    Args:
        root: of the corpus.
        utterances: of the split.
        characters: that they are transcribed with.
        eos_in_targets: a target ends with ``</s>``.
    """

    def __init__(
        self, root: Path, utterances: Iterable[Utterance], characters: Characters, eos_in_targets: bool
    ) -> None:
        self.root = root
        self.utterances = list(utterances)
        self.characters = characters
        self.end = [EOS] if eos_in_targets else []

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one utterance: (samples,) float32 at 16 kHz, (characters,) int64, its name."""
        utterance = self.utterances[index]
        target = np.array(self.characters.encode(utterance.text) + self.end)
        return load_audio(self.root / utterance.file), target, utterance.name
