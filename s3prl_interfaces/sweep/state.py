"""What stands in the folder of one cell of a sweep: is it finished, unfinished, failed or new?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from s3prl_interfaces.errors import ConfigError, ResultError
from s3prl_interfaces.results.problems import FAILED_FILE, inspect_folder, read_failure
from s3prl_interfaces.results.store import RESULT_FILE, read_result
from s3prl_interfaces.runner.checkpoint import step_checkpoints, step_of
from s3prl_interfaces.runner.config import read_yaml


@dataclass(frozen=True)
class State:
    """How far a cell has come."""

    kind: Literal["finished", "unfinished", "failed", "new"]
    step: int = 0
    """Updates that are done, of those that a checkpoint holds."""
    total: int | None = None
    """Updates that its config asks for; None where there is no config yet."""
    reason: str = ""
    """Why it failed."""

    def __str__(self) -> str:
        if self.kind == "unfinished":
            return f"unfinished, step {self.step} of {self.total}"
        return f"failed: {self.reason}" if self.kind == "failed" else self.kind


def state_of(folder: Path) -> State:
    """Look into the folder of a cell."""
    checkpoints = step_checkpoints(folder)
    step = step_of(checkpoints[-1]) or 0 if checkpoints else 0
    total = _total_steps(folder)
    if (folder / FAILED_FILE).is_file():
        _, reason = read_failure(folder) or (step, f"{FAILED_FILE} cannot be read")
        return State("failed", step, total, reason)
    if (folder / RESULT_FILE).is_file() and not (checkpoints and total is not None and step < total):
        try:
            read_result(folder / RESULT_FILE)
            # It looks closer, and takes longer: of a run that ended well the result is the newest.
            wrong = inspect_folder(folder) if checkpoints and _newer(checkpoints[-1], folder / RESULT_FILE) else None
        except ResultError as error:
            wrong = str(error)
        # `run -a` would take it for finished too: only its owner can say whether it may go.
        return State("finished", step, total) if wrong is None else State("failed", step, total, wrong)
    return State("unfinished" if checkpoints else "new", step, total)


def stored(folder: Path, name: str) -> dict[str, Any]:
    """config.yaml or args.yaml of a cell; empty where it is missing or damaged."""
    path = folder / name
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (ConfigError, OSError):
        return {}


@lru_cache(maxsize=10_000)  # YAML is slow to read, and a sweep asks for the same files again and again
def _read(path: Path, _changed: int) -> dict[str, Any]:
    return read_yaml(path)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The dotted keys in which two configs differ."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key}")
    return found


def _newer(one: Path, other: Path) -> bool:
    return one.stat().st_mtime > other.stat().st_mtime


def _total_steps(folder: Path) -> int | None:
    runner = stored(folder, "config.yaml").get("runner")
    total = runner.get("total_steps") if isinstance(runner, dict) else None
    return total if isinstance(total, int) else None
