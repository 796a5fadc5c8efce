"""Checkpoints in S3PRL's form (``s3prl/downstream/runner.py``), as data only, written whole or not at all."""

import argparse
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from s3prl_interfaces.errors import CheckpointError

_PARTIAL = ".partial"
_STATES = re.compile(r"states-(\d+)\.ckpt")


def save_checkpoint(path: Path, states: Mapping[str, Any]) -> None:
    """Write ``states`` to ``path``: to a temporary name beside it first, then renamed.

    Raises:
        CheckpointError: the file cannot be written (disk full, no permission); an older one at ``path`` is untouched.
    """
    temporary = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(states), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"Checkpoint {path} cannot be written: {error}.") from error


def drop_partial(folder: Path) -> None:
    """Remove what a process that was killed in the middle of writing left behind."""
    for path in folder.glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


def is_plain_data(value: Any) -> bool:
    """Whether a checkpoint may hold it: what ``torch.load(weights_only=True)`` gives back as it was."""
    if isinstance(value, dict):
        return all(is_plain_data(entry) for entry in (*value.keys(), *value.values()))
    if type(value) in (list, tuple):
        return all(is_plain_data(entry) for entry in value)
    if isinstance(value, torch.Tensor):
        return value.device.type == "cpu" and not value.requires_grad
    return value is None or type(value) in (bool, int, float, str)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours or of S3PRL's onto the CPU. ``Args`` comes back as a plain dict.

    S3PRL pickles ``Args`` as an ``argparse.Namespace``; that class is allowed, and nothing else that is not data.

    Raises:
        CheckpointError: missing, unreadable, holding more than data, or not an S3PRL-style checkpoint.
    """
    if not _is(path.is_file):
        raise CheckpointError(f"Checkpoint {path} does not exist.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            states = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the broken bytes lead to
        raise CheckpointError(
            f"Checkpoint {path} cannot be read: it is damaged, or holds more than tensors and plain data "
            f"({' '.join(str(error).split())[:200]})."
        ) from error
    if not isinstance(states, dict) or not {"Args", "Config", "Step", "Downstream"} <= states.keys():
        raise CheckpointError(
            f"{path} is not a checkpoint of a downstream run (no Args, Config, Step, Downstream). The weights of an "
            "upstream go to `-k`, not to `-e` or `-i`."
        )
    if isinstance(states["Args"], argparse.Namespace):
        states["Args"] = vars(states["Args"])
    for key, kind in (("Args", dict), ("Config", dict), ("Step", int)):
        if not isinstance(states[key], kind):
            raise CheckpointError(f"{path} is damaged: its {key} is {states[key]!r:.60}.")
    return states


def _is(question: Callable[[], bool]) -> bool:
    """Whether a path is a file or a folder; one that no disk can have (too long, with a NUL) is neither."""
    try:
        return question()
    except (OSError, ValueError):
        return False


def step_of(path: Path) -> int | None:
    """The step of a ``states-<step>.ckpt``, by its name."""
    match = _STATES.fullmatch(path.name)
    return int(match[1]) if match else None


def step_checkpoints(folder: Path) -> list[Path]:
    """The ``states-<step>.ckpt`` of a folder, oldest first."""
    found = {step: path for path in folder.glob("states-*.ckpt") if (step := step_of(path)) is not None}
    return [found[step] for step in sorted(found)]


def find_checkpoint(path: Path) -> Path:
    """What ``-e`` means: a file itself; of a folder its newest ``states-<step>.ckpt``.

    Raises:
        CheckpointError: there is none.
    """
    if _is(path.is_dir):
        found = step_checkpoints(path)
        if not found:
            raise CheckpointError(f"{path} holds no `states-<step>.ckpt` to continue from.")
        return found[-1]
    if not _is(path.is_file):
        raise CheckpointError(f"Checkpoint {path} does not exist.")
    return path


def load_weights(module: torch.nn.Module, weights: Mapping[str, Any], name: str, path: Path) -> None:
    """Load a state dict strictly.

    Raises:
        CheckpointError: it is of another shape; the message names the part and what differs.
    """
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(
            f"The {name} weights of {path} do not fit this run: {' '.join(str(error).split())[:300]} "
            "Use the upstream, interface and task that the checkpoint was trained with."
        ) from error
