"""Loading the results of runs, and listing the runs whose results do not count."""

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.problems import Problem, inspect_folder
from s3prl_interfaces.results.record import RunResult
from s3prl_interfaces.results.store import RESULT_FILE, find_results, nothing_below, read_result, search

MOST_SAID = 5
"""Problems that one error message tells of."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A result and the folder that it stands in, with the run's predictions beside it."""

    folder: Path
    result: RunResult


@dataclass(frozen=True)
class Found:
    """What stands below some folders."""

    runs: tuple[Run, ...]
    """Finished runs, one of each; in the order of the search."""
    problems: tuple[Problem, ...]
    """Runs that are not finished, or whose results cannot be used."""


def load_results(places: Iterable[str | os.PathLike[str]]) -> list[RunResult]:
    """Read every result in and below the given places, and keep one of each run.

    Of results of the same run the file that was modified last is kept, and a warning names both files.

    Raises:
        ResultError: As :func:`find_results` and :func:`read_result`.
    """
    return list(_newest_of_each({path: read_result(path) for path in find_results(places)}).values())


def load_runs(places: Iterable[str | os.PathLike[str]]) -> Found:
    """Read every result in and below the given places, and list the runs whose results do not count.

    Of results of the same run the file that was modified last is kept, and a warning names both files.

    Args:
        places: Directories to search, or result files themselves (whatever their name).

    Raises:
        ResultError: A place does not exist, or there is no result to be used in any.
    """
    places = list(places)
    results: dict[Path, RunResult] = {}
    problems = []
    for path in search(places, _is_a_runs) or find_results(places):
        # A file of another name was moved away from what its run left, and given by its name.
        wrong = inspect_folder(path.parent) if path.name == RESULT_FILE else None
        if wrong is None:
            try:
                results[path] = read_result(path)
            except ResultError as error:
                wrong = str(error).replace(str(path), path.name)
        if wrong is not None:
            problems.append(Problem(path.parent, wrong))
    if not results:
        raise ResultError(_unusable(places, problems))
    runs = tuple(Run(path.parent, result) for path, result in _newest_of_each(results).items())
    return Found(runs, tuple(problems))


def _is_a_runs(folder: Path) -> bool:
    return (folder / RESULT_FILE).is_file() or inspect_folder(folder) is not None


def _unusable(places: Iterable[str | os.PathLike[str]], problems: list[Problem]) -> str:
    said = " ".join(f"{problem.folder}: {problem.text}" for problem in problems[:MOST_SAID])
    more = f" And {len(problems) - MOST_SAID} more." if len(problems) > MOST_SAID else ""
    return f"{nothing_below(places)} that can be used. {said}{more}"


def _newest_of_each(found: Mapping[Path, RunResult]) -> dict[Path, RunResult]:
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
    return {path: result for path, result in found.items() if path in chosen}
