"""Transcripts as characters: the words in upper case, `|` after each."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from s3prl_interfaces.errors import DataError

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
"""The first ids of every dictionary; ``<s>`` is CTC's blank."""
BLANK, PAD, EOS = 0, 1, 2
BOUNDARY = "|"
LETTERS = tuple("|ETAONIHSRDLUMCWFGYPBVK'XJQZ")
"""SUPERB's, by how often they occur in LibriSpeech."""


class UnknownCharacterError(ValueError):
    """A transcript has a character that the dictionary lacks."""


class Characters:
    """The symbols that an utterance is transcribed with, by id.

    Args:
        letters: all symbols but :data:`SPECIALS`, in the order of their ids.
    """

    def __init__(self, letters: Sequence[str] = LETTERS) -> None:
        self.symbols = [*SPECIALS, *letters]
        self._ids = {symbol: index for index, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``: in upper case, a boundary between words and after the last.

        Raises:
            UnknownCharacterError: the dictionary lacks a character. S3PRL adds it after the head's size is settled, so
                that its loss is of a class that is not there (D20).
        """
        characters = BOUNDARY.join([*text.upper().split(), ""]) or BOUNDARY
        try:
            return [self._ids[character] for character in characters]
        except KeyError as error:
            raise UnknownCharacterError(f"the character {error.args[0]!r}, which the dictionary lacks") from error

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Symbols of ids, without the blank and the end of the sentence."""
        return [self.symbols[index] for index in ids if index not in (BLANK, EOS)]


def words_of(tokens: Iterable[str]) -> list[str]:
    """The words that symbols spell."""
    return "".join(tokens).replace(BOUNDARY, " ").split()


def read_characters(path: Path) -> Characters:
    """Read S3PRL's ``char.dict``: lines ``<symbol> <count>``, without :data:`SPECIALS`.

    Raises:
        DataError: the file cannot be read, or a line is malformed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.datarc.dict_path` must be S3PRL's char.dict; null "
            "takes SUPERB's characters."
        ) from error
    letters: dict[str, None] = {}  # a set in order: the wrong file may have a million lines
    for number, line in enumerate(lines, start=1):
        letter, _, count = line.rstrip().rpartition(" ")
        if not letter or not count.isdecimal():
            raise DataError(f"{path}, line {number}: must be `<symbol> <count>`, but is {line!r}.")
        if letter in SPECIALS or letter in letters:
            raise DataError(f"{path}, line {number}: {letter!r} is there already.")
        letters[letter] = None
    if BOUNDARY not in letters:
        raise DataError(f"{path} lacks the word boundary {BOUNDARY!r}.")
    return Characters([*letters])
