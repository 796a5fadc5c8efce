"""Audio SNIPS: ``{train,valid,test}/<Speaker>-snips-<split>-<n>.wav`` and ``all.iob.snips.txt``."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from downstream_tasks.layout import first_of
from downstream_tasks.sf.slots import OUTSIDE, SlotVocabulary
from downstream_tasks.text_expert import Transcribed
from downstream_tasks.vocabulary import UNK
from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

TRANSCRIPTS = "all.iob.snips.txt"
SPEAKERS = {
    "train": ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"),
    "valid": ("Aditi", "Amy", "Geraint", "Nicole"),
    "test": ("Brian", "Emma", "Raveena", "Russell"),
}
"""Those whose utterances SUPERB uses of each folder."""

Lines = Mapping[str, tuple[int, str]]
"""Number and text of the line of each utterance."""


def read_lines(path: Path) -> dict[str, tuple[int, str]]:
    """The lines of ``all.iob.snips.txt`` by utterance: the line's number, and what follows the utterance's name.

    Raises:
        DataError: the file cannot be read, or an utterance has two lines.
    """
    lines: dict[str, tuple[int, str]] = {}
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                name, _, rest = line.strip().partition(" ")
                if name in lines:
                    raise DataError(f"{path}, line {number}: {name} is on line {lines[name][0]} already.")
                if name:
                    lines[name] = (number, rest)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.corpus.path` must be the folder of Audio SNIPS that "
            f"holds train/, valid/, test/ and {TRANSCRIPTS}; `s3prl-interfaces mini-superb DIR` makes a small one."
        ) from error
    return lines


def parse_line(path: Path, number: int, rest: str) -> tuple[list[str], list[str]]:
    """Words and labels of ``BOS W1 .. Wn EOS<tab>O s1 .. sn <intent>``.

    Raises:
        DataError: the line is malformed.
    """
    sentence, _, tags = rest.partition("\t")
    words, labels = sentence.split(" "), tags.split(" ")
    if len(words) != len(labels) or len(words) < 3 or (words[0], words[-1], labels[0]) != ("BOS", "EOS", OUTSIDE):
        raise DataError(
            f"{path}, line {number}: must be `<utterance> BOS WORDS EOS<tab>O SLOTS INTENT` with one slot (or O) for "
            f"each word, but has {rest!r} after the utterance."
        )
    return words[1:-1], labels[1:-1]


def read_split(
    root: Path,
    folders: Sequence[str],
    speakers: Sequence[str],
    lines: Lines,
    vocabulary: SlotVocabulary,
    *,
    eos: bool = True,
    skip_bad_audio: bool = False,
) -> list[Transcribed]:
    """The utterances of a split's speakers, one folder after the other, sorted by name.

    Audio SNIPS lists every sentence for each of its speakers, whether there is audio or not, so a line without audio
    is no error; how many of the split's there are is logged.

    Args:
        root: the corpus.
        folders: of the split.
        speakers: what the names of their utterances begin with; others are not read, as in S3PRL.
        lines: see :func:`read_lines`.
        vocabulary: of the targets.
        eos: whether ``<eos>`` ends each target.
        skip_bad_audio: leave out audio that ``lines`` does not know, and say so, as S3PRL does; else it is an error.

    Raises:
        DataError: a folder is missing, a speaker has no audio, audio has no line, or a slot is unknown.
    """
    source = root / TRANSCRIPTS
    audio = {folder: sorted((root / folder).rglob("*.wav")) for folder in folders}
    empty = [f"{root / folder} holds no .wav file" for folder, paths in audio.items() if not paths]
    if empty:
        raise DataError(f"{first_of(empty)}. `downstream_expert.corpus` must name folders of Audio SNIPS.")
    chosen = [path for paths in audio.values() for path in paths if path.stem.startswith(tuple(speakers))]
    absent = [one for one in speakers if not any(path.stem.startswith(one) for path in chosen)]
    if absent:
        raise DataError(
            f"{root}: {', '.join(folders)} has no audio of {', '.join(absent)}, which "
            f"`downstream_expert.corpus.{folders[0]}_speakers` names: correct the names or take them out."
        )
    unknown = [str(path) for path in chosen if path.stem not in lines]
    if unknown and not skip_bad_audio:
        raise DataError(
            f"{source} has no line for {first_of(unknown)}. Get the file that belongs to the audio; "
            "`skip_bad_audio: true` leaves such audio out."
        )
    if unknown:
        log.warning(
            "%d left out, as `skip_bad_audio` says: no line in %s for %s.", len(unknown), source, first_of(unknown)
        )
    _tell_silent(lines, folders, speakers, {path.stem for path in chosen})
    utterances = []
    for path in chosen:
        if path.stem not in lines:
            continue
        words, labels = parse_line(source, *lines[path.stem])
        strange = sorted(set(labels) - vocabulary.slots - {OUTSIDE})
        if strange:
            raise DataError(
                f"{source}, line {lines[path.stem][0]}: the slot {', '.join(strange)} is not in slots.txt "
                "(`downstream_expert.text.slots_file`), which must be that of this corpus."
            )
        utterances.append(Transcribed(path, vocabulary.encode(words, labels, eos)))
    odd = sum((utterance.target == UNK).any() for utterance in utterances)
    if odd:
        log.warning("%s: %d utterances have characters that are not in the vocabulary: <unk>.", folders[0], odd)
    return utterances


def _tell_silent(lines: Lines, folders: Sequence[str], speakers: Sequence[str], heard: set[str]) -> None:
    """Say how many lines of the split's speakers have no audio."""
    kinds = {f"snips-{folder}-" for folder in folders}
    begins = tuple(speakers)
    silent = [name for name in lines if name.startswith(begins) and any(kind in name for kind in kinds)]
    count = sum(name not in heard for name in silent)
    if count:
        log.warning("%s: %d of %d lines of its speakers have no audio.", ", ".join(folders), count, len(silent))
