"""Checks of a downloaded corpus: everything that is wrong with it, in one message."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from s3prl_interfaces.errors import DataError

SHOWN = 10
"""How many problems a message names; the others are counted."""


def refuse(root: Path, problems: Sequence[str], remedy: str = "") -> None:
    """Do nothing if there is no problem, else say what they are.

    Args:
        root: the corpus.
        problems: one phrase each.
        remedy: a sentence, what to do.

    Raises:
        DataError: there is a problem.
    """
    if problems:
        raise DataError(f"{root} is incomplete: {first_of(problems)}. {remedy}".rstrip())


def first_of(problems: Sequence[str]) -> str:
    """The first ten problems, and how many more there are."""
    more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
    return "; ".join([*problems[:SHOWN], *more])


def missing_files(paths: Iterable[Path]) -> list[Path]:
    """Which of the paths do not exist.

    The disk is asked once for each folder, not for each file: corpora have up to 150 thousand.
    """
    folders: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        if path.parent not in folders:
            folders[path.parent] = _names_in(path.parent)
        if path.name not in folders[path.parent]:
            missing.append(path)
    return missing


def _names_in(folder: Path) -> set[str]:
    try:
        return {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    except (OSError, ValueError):  # it may not be read, or its name is none that a folder can have
        return set()


def name_below(root: Path, path: Path) -> str:
    """What a path is called below ``root``; all of it where it is elsewhere, as a list of files may say."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
