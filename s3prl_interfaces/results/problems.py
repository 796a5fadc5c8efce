"""Runs that are half-finished, failed or were continued: what is wrong with a run's folder, and the remedy."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from s3prl_interfaces.files import write_whole
from s3prl_interfaces.plain_yaml import read_plain_yaml
from s3prl_interfaces.results.store import RESULT_FILE

FAILED_FILE = "failed.json"
"""What a lane that died leaves: ``step`` and ``reason``."""

SLACK_SECONDS = 60
"""By how much a checkpoint may be newer than the result that was made from it: copies of a folder lose the times."""

_STATES = re.compile(r"states-(\d+)\.ckpt")


@dataclass(frozen=True)
class Problem:
    """A run whose result does not count."""

    folder: Path
    text: str
    """What is wrong, and the remedy."""


def inspect_folder(folder: Path) -> str | None:
    """Say why the result of a run's folder does not count; whether ``results.json`` can be read is not looked at.

    Returns:
        What is wrong, and the remedy; ``None`` for a finished run, and for a folder that is no run's.
    """
    result = folder / RESULT_FILE
    checkpoints = {
        int(match[1]): path for path in folder.glob("states-*.ckpt") if (match := _STATES.fullmatch(path.name))
    }
    if (folder / FAILED_FILE).is_file():
        return _failure(folder)
    if not checkpoints:
        if result.is_file() or not ((folder / "config.yaml").is_file() and (folder / "args.yaml").is_file()):
            return None
        return "no checkpoint and no result: it is still at its start, or stopped there. Run it again."
    step, total = max(checkpoints), _total_steps(folder / "config.yaml")
    progress = f"step {step}" if total is None else f"step {step} of {total}"
    remedy = f"continue it with `s3prl-interfaces run -m train -e {folder}`."
    if not result.is_file():
        return f"not finished, {progress}: if it is not running now, {remedy}"
    if total is not None and step < total:
        return f"continued after its {RESULT_FILE}, which is of fewer steps, and not finished, {progress}: {remedy}"
    if checkpoints[step].stat().st_mtime > result.stat().st_mtime + SLACK_SECONDS:
        return (
            f"{RESULT_FILE} is older than {checkpoints[step].name}: it was continued, and not evaluated again. Delete "
            f"{RESULT_FILE}, then {remedy}"
        )
    return None


def write_failure(folder: Path, step: int, reason: str) -> None:
    """Note in a run's folder that it failed after ``step`` updates, and why."""
    content = {"step": step, "reason": " ".join(reason.split())}
    write_whole(folder / FAILED_FILE, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_failure(folder: Path) -> tuple[object, str] | None:
    """Step and reason of what :func:`write_failure` noted; ``None`` where it cannot be read."""
    try:
        failure = json.loads((folder / FAILED_FILE).read_text(encoding="utf-8"))
        return failure["step"], " ".join(str(failure["reason"]).split())
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _failure(folder: Path) -> str:
    failure = read_failure(folder)
    if failure is None:
        return f"failed, and its {FAILED_FILE} cannot be read: look into log.txt, then run it again with `-a`."
    step, reason = failure
    return f"failed at step {step}: {reason.rstrip('.')}. Mend that and run it again with `-a`."


def _total_steps(path: Path) -> int | None:
    try:
        total = read_plain_yaml(path.read_text(encoding="utf-8"))["runner"]["total_steps"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return total if isinstance(total, int) else None
