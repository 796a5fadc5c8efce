"""``layers.json``: what an interface looks at. Schema version 1, key by key."""

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.files import write_whole

LAYERS_FILE = "layers.json"
LAYERS_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How much of each layer the interface takes, by weights of its own."""

    what: str
    """``softmax weights``, ``softmax weights of each group``, ``attention of CLS`` (the mean over the split's frames;
    what a row lacks to 1 is the attention of CLS to itself), or what a plug-in calls its own."""

    rows: tuple[str, ...]
    """A name for each group or head; one for a plain weighted sum."""

    values: tuple[tuple[float, ...], ...]
    """Rows x L; 0 for a layer that is not of the group."""


@dataclass(frozen=True, kw_only=True)
class LayerResult:
    """What became of one run's score without each of its L layers. The fields are the keys of ``layers.json``."""

    schema_version: int = LAYERS_VERSION
    """Changes only when an older reader would misunderstand the file."""

    split: str
    """The split that was scored: the one that chose the weights."""

    metric: str
    """Name of the metric, as in ``metrics[split]`` of ``results.json``."""

    higher_is_better: bool
    """True for an accuracy, false for an error rate."""

    score: float
    """With every layer as it is, in the unit that the task reports."""

    without: tuple[float, ...]
    """For each layer the score where it is replaced by its mean over time."""

    mean_over: str = "utterance"
    """``utterance``: by each utterance's own mean. ``split``: by the mean over the frames of all utterances."""

    step: int
    """The training step of the weights that were scored."""

    checkpoint: str
    """Name of their file, such as ``dev-best.ckpt``."""

    weights: Weights | None = None
    """``null`` for an interface without weights of layers."""

    @property
    def lost(self) -> tuple[float, ...]:
        """The score lost without each layer; positive where the score is worse without it."""
        better = self.higher_is_better
        return tuple(self.score - score if better else score - self.score for score in self.without)


def write_layers(folder: str | os.PathLike[str], result: LayerResult) -> None:
    """Write ``layers.json`` into a run's folder, whole or not at all.

    Raises:
        ResultError: The result is not valid or could not be written.
    """
    path = Path(folder) / LAYERS_FILE
    content = dataclasses.asdict(result)
    problems = list(_problems(content))
    if problems:
        raise ResultError(f"Could not write {path}: {'; '.join(problems)}.")
    try:
        write_whole(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ResultError(f"Could not write {path}: {error}.") from error


def read_layers(folder: str | os.PathLike[str]) -> LayerResult | None:
    """Read the ``layers.json`` of a run's folder; None if there is none.

    Raises:
        ResultError: The file cannot be read, is not JSON, or is not of a known schema version.
    """
    path = Path(folder) / LAYERS_FILE
    if not path.exists():
        return None
    remedy = "make it again with `s3prl-interfaces layers`"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} cannot be read ({error}): {remedy}.") from error
    problems = list(_problems(data))
    if problems:
        raise ResultError(f"{path} cannot be used ({'; '.join(problems)}): {remedy}.")
    known = {field.name: data[field.name] for field in dataclasses.fields(LayerResult) if field.name in data}
    known["without"] = tuple(known["without"])
    if known.get("weights") is not None:
        weights = known["weights"]
        values = tuple(tuple(row) for row in weights["values"])
        known["weights"] = Weights(what=weights["what"], rows=tuple(weights["rows"]), values=values)
    return LayerResult(**known)


def _problems(data: Any) -> Iterator[str]:
    if not isinstance(data, Mapping):
        yield f"it must hold an object, but holds {data!r:.60}"
        return
    version = data.get("schema_version")
    if not _is_count(version) or version != LAYERS_VERSION:
        yield f"`schema_version` must be {LAYERS_VERSION}, but is {version!r}"
        return
    for key, is_right, expected in (
        ("split", _is_name, "a name"),
        ("metric", _is_name, "a name"),
        ("higher_is_better", _is_bool, "true or false"),
        ("score", _is_number, "a finite number"),
        ("without", _are_numbers, "a list of finite numbers, one for each layer"),
        ("step", _is_count, "a whole number of 0 or more"),
        ("checkpoint", _is_name, "a name"),
    ):
        if not is_right(data.get(key)):
            yield f"`{key}` must be {expected}, but is {data.get(key)!r}"
    if data.get("mean_over", "utterance") not in ("utterance", "split"):
        yield f"`mean_over` must be utterance or split, but is {data['mean_over']!r}"
    if data.get("weights") is not None and _are_numbers(data.get("without")):
        yield from _weight_problems(data["weights"], len(data["without"]))


def _weight_problems(weights: Any, num_layers: int) -> Iterator[str]:
    if not isinstance(weights, Mapping):
        yield f"`weights` must be null or an object, but is {weights!r}"
        return
    rows: Any = weights.get("rows")
    values: Any = weights.get("values")
    if not _is_name(weights.get("what")):
        yield f"`weights.what` must be a name, but is {weights.get('what')!r}"
    if not (_is_list(rows) and rows and all(map(_is_name, rows))):
        yield f"`weights.rows` must be a list of names, but is {rows!r}"
        return
    shaped = _is_list(values) and len(values) == len(rows)
    if not (shaped and all(_are_numbers(row) and len(row) == num_layers for row in values)):
        yield f"`weights.values` must be {len(rows)} x {num_layers} finite numbers (rows x layers), but is {values!r}"


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    # Not `isfinite`: it fails for a whole number that no float can hold.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, int) and value >= 0


def _are_numbers(value: Any) -> bool:
    return _is_list(value) and bool(value) and all(map(_is_number, value))
