"""Tokens and their ids in PR and SF, as S3PRL numbers them (``s3prl/downstream/ctc/text.py``)."""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from s3prl_interfaces.errors import DataError

PAD, EOS, UNK = 0, 1, 2
SPECIALS = ("<pad>", "<eos>", "<unk>")


class Vocabulary:
    """``<pad>`` (CTC's blank), ``<eos>`` and ``<unk>``, then the task's own tokens.

    Args:
        tokens: what each stands for in a text, in the order of their ids, which begin at 3.
        separator: what a text has between two tokens.

    Attributes:
        own: the task's own tokens, as given.
        tokens: all of them, by id.
        ids: the other way round.
    """

    def __init__(self, tokens: Sequence[str], separator: str) -> None:
        self.own = list(tokens)
        self.tokens = [*SPECIALS, *tokens]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        self.separator = separator

    def __len__(self) -> int:
        """How many tokens there are, specials included."""
        return len(self.tokens)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first ``<eos>``."""
        spoken = takewhile(lambda index: index != EOS, ids)
        return self.separator.join(self.tokens[index] for index in spoken)


def read_tokens(path: Path) -> list[str]:
    """Read a file with one token on each line (S3PRL's ``vocab_file``); a token may be a space.

    Raises:
        DataError: the file cannot be read, is empty, or a line is empty or repeated.
    """
    try:
        tokens = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): `downstream_expert.text.vocab_file` must have one token on each line; "
            "leave the key out for SUPERB's tokens, which are built in."
        ) from error
    if not tokens:
        raise DataError(f"{path} is empty: it must have one token on each line.")
    seen: dict[str, int] = {}
    for number, token in enumerate(tokens, start=1):
        if token == "" or token in SPECIALS:
            raise DataError(
                f"{path}, line {number}: must be a token other than {', '.join(SPECIALS)}, but is {token!r}."
            )
        if token in seen:
            raise DataError(f"{path}, line {number}: {token!r} is on line {seen[token]} already.")
        seen[token] = number
    return tokens
