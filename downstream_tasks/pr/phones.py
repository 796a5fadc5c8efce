"""Phones, and how words are pronounced."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from downstream_tasks.layout import first_of
from downstream_tasks.librispeech import Utterance
from s3prl_interfaces.errors import DataError

_VOWELS = "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW"
_CONSONANTS = "B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH"
_STRESSED = (vowel + stress for vowel in _VOWELS.split() for stress in "012")
PHONES = ("SIL", "SPN", *sorted([*_CONSONANTS.split(), *_STRESSED]))
"""SUPERB's tokens in the order of their ids: the CMU dictionary's phones, each vowel with its stress."""

Lexicon = Mapping[str, Sequence[str]]
"""The phones of each word."""


def strip_stress(phone: str) -> str:
    """``AH0`` to ``AH``."""
    return phone.rstrip("012")


def read_lexicon(paths: Iterable[Path], phones: Sequence[str]) -> dict[str, list[str]]:
    """How words are pronounced: what comes first, of a word with several pronunciations or in several files.

    Args:
        paths: files with a line ``WORD P1 P2 ...`` for each word, parted by tabs or spaces.
        phones: those that may occur.

    Raises:
        DataError: a file cannot be read, or a line has no phone or an unknown one.
    """
    lexicon: dict[str, list[str]] = {}
    known = set(phones)
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"Lexicon {path} cannot be read ({error}): `downstream_expert.corpus.lexicon` must list files with a "
                "line `WORD P1 P2 ...` for each word; `s3prl-interfaces prepare pr DIR` makes one of those it finds."
            ) from error
        for number, line in enumerate(lines, start=1):
            word, *pronunciation = line.split() or [""]
            if not word:
                continue
            if not pronunciation:
                raise DataError(f"{path}, line {number}: {word} has no phone; lines must be `WORD P1 P2 ...`.")
            for phone in pronunciation:
                if phone not in known:
                    raise DataError(
                        f"{path}, line {number}: {word} has the phone {phone}, which the vocabulary lacks "
                        "(`downstream_expert.text.vocab_file`; the built-in one is the CMU dictionary's, with stress)."
                    )
            lexicon.setdefault(word, pronunciation)
    return lexicon


def words_of(utterances: Iterable[Utterance], lexicon: Lexicon) -> list[str]:
    """The words that are said, each once, in alphabetical order.

    Raises:
        DataError: the lexicon lacks a word; says where each is first said.
    """
    first: dict[str, Utterance] = {}
    for utterance in utterances:
        for word in utterance.text.split():
            first.setdefault(word, utterance)
    absent = [f"{word} ({one.where})" for word, one in first.items() if word not in lexicon]
    if absent:
        raise DataError(
            f"{len(absent)} words of the transcripts are in no lexicon: {first_of(absent)}. Add a lexicon that has "
            "them to `downstream_expert.corpus.lexicon`, such as librispeech-lexicon-200k-g2p.txt and "
            "librispeech-lexicon-allothers-g2p.txt of the Hugging Face dataset s3prl/g2p."
        )
    return sorted(first)
