"""Writing, reading and finding ``results.json``."""

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from s3prl_interfaces.errors import ResultError
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
    # The process id keeps two processes apart; a name of our own, unlike `tempfile`'s, honours the umask.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        result.validate()
        text = json.dumps(result.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Only a rename within one folder is atomic.
        temporary.replace(path)
    except (OSError, TypeError, ValueError) as error:
        raise ResultError(f"Could not write the result {path}: {error}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


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
    except ValueError as error:
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
    searched = [Path(place) for place in places]
    found: dict[Path, Path] = {}
    visited: set[Path] = set()
    for place in searched:
        if place.is_dir():
            files = sorted(_walk(place, visited))
        elif place.is_file():
            files = [place]
        else:
            raise ResultError(
                f"There is no directory or file {place}. Give the folder that the runs were written to, "
                "such as result/downstream."
            )
        for file in files:
            found.setdefault(file.resolve(), file)
    if not found:
        raise ResultError(
            f"There is no {RESULT_FILE} in or below {', '.join(map(str, searched)) or 'no folder'}. "
            "A run writes it when its evaluation is done: finish a run, or give another folder."
        )
    return list(found.values())


def load_results(places: Iterable[str | os.PathLike[str]]) -> list[RunResult]:
    """Read every result in and below the given places, and keep one of each run.

    Of results of the same run (task, upstream, interface, options, seed, fold) the file that was modified
    last is kept, and a warning names both files.

    Raises:
        ResultError: As :func:`find_results` and :func:`read_result`.
    """
    return list(_newest_of_each({path: read_result(path) for path in find_results(places)}))


def _newest_of_each(found: Mapping[Path, RunResult]) -> Iterator[RunResult]:
    kept: dict[tuple[object, ...], Path] = {}
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns):
        result = found[path]
        older = kept.get(result.identity)
        if older is not None:
            logger.warning(
                "Two results of the same run (%s, %s, %s, seed %d): %s is used because it is newer, %s is "
                "ignored. Move one of them away to silence this.",
                result.task, result.upstream, result.label, result.seed, path, older,
            )  # fmt: skip
        kept[result.identity] = path
    # In the order of the search, so that nothing but the choice depends on times.
    chosen = set(kept.values())
    return (result for path, result in found.items() if path in chosen)


def _walk(directory: Path, visited: set[Path]) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(directory, followlinks=True, onerror=_warn):
        here = Path(folder)
        real = here.resolve()
        if real in visited:
            # A link back up would never end.
            subfolders.clear()
            continue
        visited.add(real)
        if RESULT_FILE in files:
            yield here / RESULT_FILE


def _warn(error: OSError) -> None:
    logger.warning("Not searched for results: %s", error)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
