"""Published figures, as rows to be looked at beside the measured ones and never compared with them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.plain_yaml import PlainYAMLError, read_plain_yaml
from s3prl_interfaces.results.board import Column, PublishedRow
from s3prl_interfaces.results.superb_score import is_measured_as_superb

SHIPPED = Path(__file__).with_name("published.yaml")
"""The figures that come with the package; the file says how one of your own is written."""

_KEYS = ("upstream", "names", "interface", "source", "scores")
_OPTIONAL = ("interface",)


@dataclass(frozen=True)
class Published:
    """The figures that one source has of one upstream with one interface."""

    upstream: str
    """As its authors call it."""
    names: tuple[str, ...]
    """What ``-u`` calls it; ``*`` stands for anything."""
    interface: str | None
    source: str
    scores: Mapping[tuple[str, str], float]
    """Task and metric -> value; accuracies and error rates in percent."""

    def is_of(self, upstream: str) -> bool:
        """Tell whether the figures are to be shown in the table of an upstream."""
        return any(fnmatchcase(upstream, name) for name in self.names)


def load_published(path: Path = SHIPPED) -> tuple[Published, ...]:
    """Read a file of published figures; :data:`SHIPPED` says what stands in one.

    Raises:
        ConfigError: The file cannot be read, or an entry is not as it should be.
    """
    try:
        entries = read_plain_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, PlainYAMLError) as error:
        raise ConfigError(f"The published figures {path} cannot be read: {error}.") from error
    if not isinstance(entries, list):
        raise ConfigError(f"{path} must hold a list of entries with {', '.join(_KEYS)}; see {SHIPPED}.")
    return tuple(_entry(entry, f"{path}, entry {number}") for number, entry in enumerate(entries, start=1))


def published_rows(
    published: Iterable[Published], upstream: str, columns: Sequence[Column]
) -> tuple[tuple[PublishedRow, ...], list[str]]:
    """Return the rows of a table, and what must be said of them.

    Shown are the figures of the table's upstream, in columns that are measured as SUPERB does.
    """
    published = list(published)
    rows = []
    for entry in published:
        if not entry.is_of(upstream):
            continue
        values = tuple(
            entry.scores.get((column.task, column.metric)) if is_measured_as_superb(column) else None
            for column in columns
        )
        if any(value is not None for value in values):
            rows.append(PublishedRow(entry.interface or entry.upstream, entry.upstream, entry.source, values))
    notes = []
    if published and not any(entry.is_of(upstream) and "*" not in entry.names for entry in published):
        known = ", ".join(dict.fromkeys(name for entry in published for name in entry.names if name != "*"))
        notes.append(f"There are no published figures of {upstream}; there are of {known or 'none'}.")
    otherwise = dict.fromkeys(column.heading for column in columns if not is_measured_as_superb(column))
    if rows and otherwise:
        notes.append(
            f"Published figures are not shown for what is not measured as SUPERB does: {', '.join(otherwise)}."
        )
    return tuple(rows), notes


def _entry(entry: Any, where: str) -> Published:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} must be a mapping of {', '.join(_KEYS)}, but is {entry!r}.")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"{where}: {unknown_name('key', key, _KEYS)}")
    missing = [key for key in _KEYS if key not in entry and key not in _OPTIONAL]
    if missing:
        raise ConfigError(f"{where} lacks {', '.join(f'`{key}`' for key in missing)}.")
    for key in ("upstream", "interface", "source"):
        if key in entry and not _is_name(entry[key]):
            raise ConfigError(f"{where}: `{key}` must be a text, but is {entry[key]!r}.")
    names = entry["names"]
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise ConfigError(f"{where}: `names` must be a list of what `-u` calls the upstream, but is {names!r}.")
    return Published(entry["upstream"], tuple(names), entry.get("interface"), entry["source"], _scores(entry, where))


def _scores(entry: Mapping[str, Any], where: str) -> dict[tuple[str, str], float]:
    scores = entry["scores"]
    if not isinstance(scores, Mapping) or not scores:
        raise ConfigError(f"{where}: `scores` must be tasks with their metrics, but is {scores!r}.")
    found = {}
    for task, metrics in scores.items():
        if not isinstance(metrics, Mapping) or not metrics:
            raise ConfigError(f"{where}: `scores.{task}` must be such as {{acc: 98.34}}, but is {metrics!r}.")
        for metric, value in metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigError(f"{where}: `scores.{task}.{metric}` must be a number, but is {value!r}.")
            found[str(task), str(metric)] = float(value)
    return found


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
