"""Names of a sweep's folders: they say what is inside, and no two are the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from s3prl_interfaces.sweep.spec import value_text

T = TypeVar("T")

LONGEST = 100
"""Characters of a folder's name."""


def values_name(values: Mapping[str, Any]) -> str:
    """Such as ``fp16=true-total_steps=100`` for ``config.runner.fp16`` and ``config.runner.total_steps``."""
    short = {key: key.rpartition(".")[2] for key in values}
    unclear = {name for name in short.values() if [*short.values()].count(name) > 1}
    told = {key if name in unclear else name: values[key] for key, name in short.items()}
    return _safe("-".join(f"{name}={_text(value)}" for name, value in told.items()))


def entry_name(name: str, flags: Mapping[str, Any]) -> str:
    """Such as ``hubert_local-ckpt=mine.pt``."""
    told = [f"{key.removeprefix('upstream_')}={_text(value)}" for key, value in flags.items()]
    return _safe("-".join([name, *told]))


def distinct(named: Sequence[tuple[T, str]]) -> list[tuple[T, str]]:
    """Let names differ where what is named does: a later one of two gets a number that depends on itself alone."""
    taken: set[str] = set()
    found = []
    for thing, name in named:
        if name in taken:
            name = f"{name}-{_digest(repr(thing))}"
        taken.add(name)
        found.append((thing, name))
    return found


def _text(value: Any) -> str:
    """A value in few characters; of a path its last part."""
    return value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else value_text(value, "values")


def _safe(text: str) -> str:
    name = re.sub(r"[^\w.,=+\[\]-]+", "_", text)
    if not name.strip("."):  # `..` is no name of a folder
        name = name.replace(".", "_")
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 9]}-{_digest(text)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
