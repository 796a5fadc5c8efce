"""Writing, reading and finding ``results.json``."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.files import write_whole
from s3prl_interfaces.results.record import RunResult

RESULT_FILE = "results.json"

logger = logging.getLogger(__name__)


def write_result(path: str | os.PathLike[str], result: RunResult) -> None:
    """Write a result, whole or not at all.

    Whatever goes wrong, a file that was there before is left as it was.

    Args:
        path: Where to write, usually ``results.json`` in the folder of the run; the folder must exist.
        result: What to write; it is checked first.

    Raises:
        ResultError: The result is not valid or could not be written.
    """
    path = Path(path)
    try:
        result.validate()
        write_whole(path, json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    except (OSError, TypeError, ValueError) as error:
        raise ResultError(f"Could not write the result {path}: {error}.") from error


def read_result(path: str | os.PathLike[str]) -> RunResult:
    """Read and check one ``results.json``.

    Raises:
        ResultError: The file is missing, is not strict JSON, or is not a result of a known schema version.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"Could not read the result {path}: {error}.") from error
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
        json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair could not be shown
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not valid JSON ({error}): run the evaluation again.") from error
    if not isinstance(data, dict):
        raise ResultError(f"{path} is not a result: it holds a {type(data).__name__}, not an object.")
    try:
        return RunResult.from_json(data)
    except ValueError as error:
        raise ResultError(f"{path} is not a result that can be used: {error}.") from error


def find_results(places: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Find every ``results.json`` in and below the given directories.

    Symbolic links are followed; a file that is reached twice is listed once.

    Args:
        places: Directories to search, or result files themselves (whatever their name).

    Returns:
        Paths, in the order of ``places`` and sorted below each.

    Raises:
        ResultError: A place does not exist, or there is no result in any.
    """
    places = list(places)
    found = search(places, lambda folder: (folder / RESULT_FILE).is_file())
    if not found:
        raise ResultError(
            f"{nothing_below(places)}. A run writes it when its evaluation is done: finish a run, or give another "
            "folder."
        )
    return found


def nothing_below(places: Iterable[str | os.PathLike[str]]) -> str:
    """Say that there is no result, as the beginning of an error."""
    return f"There is no {RESULT_FILE} in or below {', '.join(str(Path(place)) for place in places) or 'no folder'}"


def search(places: Iterable[str | os.PathLike[str]], is_wanted: Callable[[Path], bool]) -> list[Path]:
    """Find the folders that are wanted, as :func:`find_results`.

    Returns:
        The paths that ``results.json`` has in the folders (whether it is there or not), and ``places`` that are files.

    Raises:
        ResultError: A place does not exist.
    """
    found: dict[Path, Path] = {}
    visited: set[Path] = set()
    for place in map(Path, places):
        if place.is_dir():
            files = sorted(folder / RESULT_FILE for folder in _walk(place, visited) if is_wanted(folder))
        elif place.is_file():
            files = [place]
        else:
            raise ResultError(
                f"There is no directory or file {place}. Give the folder that the runs were written to, "
                "such as result/downstream."
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _walk(directory: Path, visited: set[Path]) -> Iterator[Path]:
    for folder, subfolders, _ in os.walk(directory, followlinks=True, onerror=_warn):
        real = Path(folder).resolve()
        if real in visited:
            # A link back up would never end.
            subfolders.clear()
            continue
        visited.add(real)
        yield Path(folder)


def _warn(error: OSError) -> None:
    logger.warning("Not searched for results: %s", error)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
