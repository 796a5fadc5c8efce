"""LibriSpeech: ``<set>/<speaker>/<chapter>/<speaker>-<chapter>-<n>.flac`` and ``<speaker>-<chapter>.trans.txt``."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from downstream_tasks.layout import first_of
from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

SETS = ("train-clean-100", "dev-clean", "test-clean")
"""Those that SUPERB uses."""


@dataclass(frozen=True)
class Utterance:
    """One audio file and what is said."""

    path: Path
    text: str
    source: Path
    """The file that holds the text."""
    line: int
    """Its line, counted from 1."""


def read_sets(root: Path, sets: Sequence[str], *, skip_bad_audio: bool = False) -> list[Utterance]:
    """The utterances of sets, one set after the other, sorted by path.

    Args:
        root: the folder that holds the sets.
        sets: names of folders, such as ``train-clean-100``.
        skip_bad_audio: leave out audio without transcript and transcripts without audio, and say so; else they are an
            error: the corpus is incomplete.

    Raises:
        DataError: a set is missing, holds no audio or is incomplete, or a transcript is malformed. All that is wrong
            is in one message.
    """
    utterances: list[Utterance] = []
    wrong: list[str] = []
    unmatched: list[str] = []
    for name in sets:
        folder = root / name
        audio = sorted(folder.rglob("*.flac"))
        if not audio:
            wrong.append(f"{folder} {'holds no .flac file' if folder.is_dir() else 'does not exist'}")
        texts: dict[tuple[Path, str], Utterance] = {}
        for transcript in sorted(folder.rglob("*.trans.txt")):
            texts.update(_read_transcript(transcript, wrong))
        for path in audio:
            utterance = texts.pop((path.parent, path.stem), None)
            if utterance is None:
                unmatched.append(f"{path} has no line in {path.stem.rpartition('-')[0]}.trans.txt beside it")
            else:
                utterances.append(utterance)
        unmatched += [
            f"{one.path} is missing, which {one.source}, line {one.line} transcribes" for one in texts.values()
        ]
    if wrong or (unmatched and not skip_bad_audio):
        raise DataError(
            f"{root} is not a complete LibriSpeech with the sets {', '.join(sets)}: {first_of([*wrong, *unmatched])}. "
            "Unpack the sets again; `skip_bad_audio: true` leaves out audio and transcripts that miss their other half."
        )
    if unmatched:
        log.warning("%d left out, as `skip_bad_audio` says: %s.", len(unmatched), first_of(unmatched))
    return utterances


def _read_transcript(path: Path, wrong: list[str]) -> dict[tuple[Path, str], Utterance]:
    """Lines ``<speaker>-<chapter>-<n> WORDS`` by folder and name; what is malformed is added to ``wrong``."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        wrong.append(f"{path} cannot be read ({error})")
        return {}
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, text = line.strip().partition(" ")
        if not text:
            wrong.append(f"{path}, line {number} must be `<utterance> WORDS`, but is {line!r}")
            continue
        found[path.parent, name] = Utterance(path.parent / f"{name}.flac", text, path, number)
    return found
