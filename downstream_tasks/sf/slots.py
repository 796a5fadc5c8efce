"""Spoken requests as tokens: characters, and a pair of tags around the value of each slot."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from downstream_tasks.vocabulary import EOS, UNK, Vocabulary
from s3prl_interfaces.errors import DataError

CHARACTERS = (" ", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "'")
OUTSIDE = "O"
"""The label of a word that is in no slot."""

_PUNCTUATION = "?!.,;-"
"""S3PRL leaves out a word that is a part of this, and so the empty word, too."""


def read_slots(path: Path) -> list[str]:
    """The slot types of ``slots.txt``, in its order: one on each line, after a first line ``O``.

    The file may end in a newline. S3PRL takes what follows it for another slot (D22), so its output layer has two more
    tokens with such a file.

    Raises:
        DataError: the file cannot be read, does not begin with ``O``, or a line is empty or repeated.
    """
    try:
        labels = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.text.slots_file` must be Audio SNIPS' slots.txt; "
            "`s3prl-interfaces prepare sf DIR` writes it from all.iob.snips.txt."
        ) from error
    if not labels or labels[0] != OUTSIDE:
        raise DataError(f"{path}, line 1: must be `{OUTSIDE}`, the label of words in no slot.")
    seen: set[str] = set()
    for number, label in enumerate(labels, start=1):
        if not label or " " in label or label in seen:
            raise DataError(f"{path}, line {number}: must be a slot type of its own, but is {label!r}.")
        seen.add(label)
    return labels[1:]


class SlotVocabulary(Vocabulary):
    """Characters, then ``B-<slot>`` and ``E-<slot>`` of each slot.

    As texts, ``B-`` has a space after it and ``E-`` one before it: ``PLAY B-artist THE BEATLES E-artist NOW``.

    Args:
        characters: in the order of their ids.
        slots: types of slots, in the order of theirs.
    """

    def __init__(self, characters: Sequence[str], slots: Sequence[str]) -> None:
        super().__init__([*characters, *(tag for slot in slots for tag in _tags(slot))], separator="")
        self.slots = frozenset(slots)

    def encode(self, words: Sequence[str], labels: Sequence[str], eos: bool = True) -> np.ndarray:
        """Tokens of a request.

        Neighbouring words with the same label are one value: the labels do not say where one value ends and another
        of the same type begins. Punctuation is left out and ``&`` is AND. S3PRL forgets the ``<eos>`` after a last
        word that is punctuation, and a tag beside punctuation within a slot (D22).

        Args:
            words: in upper case.
            labels: the slot of each word, or ``O``.
            eos: whether ``<eos>`` ends the tokens.

        Returns:
            (tokens,) int64; a character that the vocabulary lacks is ``<unk>``.

        Raises:
            KeyError: a label is not one of the slots.
        """
        ids: list[int] = []
        for label, run in groupby(zip(words, labels, strict=True), key=lambda pair: pair[1]):
            spoken = ["AND" if word == "&" else word for word, _ in run if word not in _PUNCTUATION]
            if not spoken:
                continue
            value = [self.ids.get(character, UNK) for character in " ".join(spoken)]
            if label != OUTSIDE:
                begin, end = _tags(label)
                value = [self.ids[begin], *value, self.ids[end]]
            ids += [self.ids[" "], *value] if ids else value
        return np.array([*ids, EOS] if eos else ids, dtype=np.int64)


def _tags(slot: str) -> tuple[str, str]:
    return f"B-{slot} ", f" E-{slot}"
