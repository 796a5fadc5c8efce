"""What one run leaves behind in ``results.json``, schema version 1, key by key."""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import PurePath
from typing import Any

from s3prl_interfaces.errors import ConfigError

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Primary:
    """The one number by which the runs of a task are compared."""

    name: str
    """Name of the metric, as in ``metrics[split]``."""

    split: str
    """The split it was measured on."""

    value: float
    """The value, in the unit the task reports (``acc`` is a fraction); equal to ``metrics[split][name]``."""

    higher_is_better: bool
    """True for an accuracy, false for an error rate."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """One run: one interface, on one upstream, trained for one task with one seed.

    The fields are the keys of ``results.json``. A field without a default must be in the file. Keys that are
    not listed here are ignored when read, so that a later release can add some within the same version.
    """

    schema_version: int = SCHEMA_VERSION
    """Changes only when an older reader would misunderstand the file."""

    task: str
    """Name of the task, such as ``ic``."""

    upstream: str
    """Name of the upstream, as given to ``-u``."""

    interface: str
    """Registered name of the interface, or ``package.module:Class``."""

    interface_options: Mapping[str, Any] = field(default_factory=dict)
    """The options given to the interface. Runs that differ here are different rows of the leaderboard."""

    seed: int
    """Seed of the weights' initialisation, dropout and SpecAugment. Runs that differ only here are averaged."""

    data_seed: int | None = None
    """Seed of the order of the data and of its crops, ``null`` in files that do not tell."""

    learning_rate: float | None = None
    """``optimizer.lr``. SUPERB tunes it for each upstream and task: the leaderboard takes the best on dev."""

    fold: str | None = None
    """The fold under test of a cross-validated task (``fold1`` of ER), ``null`` elsewhere. A seed's score is
    the mean over its folds."""

    protocol: Mapping[str, Any] = field(default_factory=dict)
    """Where SUPERB's way and a sounder one differ, which was used: the task's named options and their values."""

    metrics: Mapping[str, Mapping[str, float]]
    """Split -> metric name -> value, and under ``step`` the training step of the weights that were scored."""

    primary: Primary
    """The metric by which runs are compared."""

    selection: Primary | None = None
    """What chose the weights that are scored: the task's own metric on dev (on test for SUPERB's SV). ``null`` where
    nothing chose and the last weights are scored."""

    parameters: Mapping[str, int]
    """Trained parameters: ``interface`` (required), ``downstream``, ``upstream_trainable`` if fine-tuned."""

    macs_per_second: int | None = None
    """Multiply-accumulate operations of the interface (without the upstream and the head) for one second of audio."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall-clock seconds of each phase, such as ``train`` and ``evaluate``."""

    peak_memory_bytes: int | None = None
    """Most device memory in use at once, ``null`` where the device does not tell."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of ``python``, ``torch``, ``torchaudio``, ``s3prl`` and ``s3prl_interfaces``."""

    config_sha256: str
    """:func:`config_sha256` of the merged config. Runs that differ only in interface and seed share it."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """Split -> number of utterances that were evaluated."""

    @property
    def label(self) -> str:
        """The interface with its options, such as ``hconv(kernel_size=3)``."""
        options = ", ".join(
            f"{name}={json.dumps(value, sort_keys=True, ensure_ascii=False)}"
            for name, value in sorted(self.interface_options.items())
        )
        return f"{self.interface}({options})" if options else self.interface

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes this run: two results with the same identity are the same run, done twice."""
        protocol = json.dumps(self.protocol, sort_keys=True)
        seeds = (self.seed, self.data_seed)
        return (self.task, self.upstream, self.label, *seeds, self.learning_rate, self.fold, protocol)

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``results.json``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "RunResult":
        """Build a result from the content of a ``results.json`` and check it.

        Raises:
            ValueError: The content is not a result of this schema; the message says all that is wrong.
        """
        version = data.get("schema_version")
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise ValueError(
                f"`schema_version` is {version}, this release reads up to {SCHEMA_VERSION}: "
                "the file was written by a newer version, upgrade s3prl-interfaces"
            )
        if not _is_whole(version) or version != SCHEMA_VERSION:
            raise ValueError(f"`schema_version` must be {SCHEMA_VERSION}, but is {version!r}")
        missing = _missing(cls, data)
        if "primary" in data:
            if not isinstance(data["primary"], Mapping):
                raise ValueError(f"`primary` must be a mapping, but is {data['primary']!r}")
            missing += [f"primary.{key}" for key in _missing(Primary, data["primary"])]
        if missing:
            raise ValueError(f"missing {', '.join(f'`{key}`' for key in missing)}")
        known = {**_known(cls, data), "primary": Primary(**_known(Primary, data["primary"]))}
        if isinstance(data.get("selection"), Mapping) and not _missing(Primary, data["selection"]):
            known["selection"] = Primary(**_known(Primary, data["selection"]))
        result = cls(**known)
        result.validate()
        return result

    def validate(self) -> None:
        """Check every field.

        Raises:
            ValueError: Something is wrong; the message says all of it.
        """
        problems = list(_problems(self))
        if problems:
            raise ValueError("; ".join(problems))


def config_sha256(config: Mapping[str, Any]) -> str:
    """Hash everything of a merged config but its top-level ``interface`` and ``seed``, and ``optimizer.lr``.

    Runs may be compared on the leaderboard when this is equal: they differ in nothing but what is compared, and in the
    learning rate, which SUPERB tunes and results.json records by itself.

    Args:
        config: The merged config: plain values, lists and mappings, as YAML gives them.

    Returns:
        64 hexadecimal digits, independent of the order of keys.

    Raises:
        ConfigError: A value is not one that YAML can give.
    """
    compared = {key: value for key, value in config.items() if key not in ("interface", "seed")}
    if isinstance(compared.get("optimizer"), Mapping):
        compared["optimizer"] = {key: value for key, value in compared["optimizer"].items() if key != "lr"}
    text = json.dumps(_canonical(compared), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        # YAML keys may be numbers, and keys of several types cannot be sorted.
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (date, PurePath)):
        return str(value)
    raise ConfigError(f"A config value must be one that YAML can hold, but is {value!r} ({type(value).__name__}).")


def _known(cls: type, data: Mapping[str, Any]) -> dict[str, Any]:
    return {item.name: data[item.name] for item in dataclasses.fields(cls) if item.name in data}


def _missing(cls: type, data: Mapping[str, Any]) -> list[str]:
    return [
        item.name
        for item in dataclasses.fields(cls)
        if item.name not in data and item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    ]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**64  # so that a float can hold it


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _problems(result: RunResult) -> Iterator[str]:
    for name in ("task", "upstream", "interface"):
        yield from _check(name, getattr(result, name), _is_name, "a non-empty string")
    if result.fold is not None:
        yield from _check("fold", result.fold, _is_name, "a non-empty string or null")
    yield from _check("seed", result.seed, _is_whole, "a whole number")
    if result.data_seed is not None:
        yield from _check("data_seed", result.data_seed, _is_whole, "a whole number or null")
    if result.learning_rate is not None:
        yield from _check("learning_rate", result.learning_rate, _is_duration, "a finite number of 0 or more, or null")
    if result.macs_per_second is not None:
        yield from _check("macs_per_second", result.macs_per_second, _is_count, "a whole number of 0 or more, or null")
    yield from _check_options("interface_options", result.interface_options)
    yield from _check_options("protocol", result.protocol)
    yield from _check_metrics(result.metrics)
    yield from _check_measured("primary", result.primary, result.metrics)
    if result.selection is not None:
        yield from _check_measured("selection", result.selection, result.metrics)
    yield from _check_each("parameters", result.parameters, _is_count, "a whole number of 0 or more")
    if isinstance(result.parameters, Mapping) and "interface" not in result.parameters:
        yield "`parameters` must name `interface`"
    yield from _check_each("seconds", result.seconds, _is_duration, "a finite number of 0 or more")
    if result.peak_memory_bytes is not None:
        yield from _check(
            "peak_memory_bytes", result.peak_memory_bytes, _is_count, "a whole number of 0 or more, or null"
        )
    yield from _check_each("versions", result.versions, _is_name, "a non-empty string")
    yield from _check("config_sha256", result.config_sha256, _is_sha256, "64 hexadecimal digits")
    yield from _check_each("counts", result.counts, _is_count, "a whole number of 0 or more")


def _is_count(value: Any) -> bool:
    return _is_whole(value) and value >= 0


def _is_duration(value: Any) -> bool:
    return _is_number(value) and value >= 0


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _check(name: str, value: Any, is_right: Any, expected: str) -> Iterator[str]:
    if not is_right(value):
        yield f"`{name}` must be {expected}, but is {value!r}"


def _check_each(name: str, values: Any, is_right: Any, expected: str) -> Iterator[str]:
    if not isinstance(values, Mapping):
        yield f"`{name}` must be a mapping, but is {values!r}"
        return
    for key, value in values.items():
        yield from _check(f"{name}.{key}", value, is_right, expected)


def _check_options(where: str, options: Any) -> Iterator[str]:
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        yield f"`{where}` must be a mapping from names, but is {options!r}"
        return
    try:
        json.dumps(options, allow_nan=False)
    except (TypeError, ValueError) as error:
        yield f"`{where}` must be values that JSON can hold, but is {options!r} ({error})"


def _check_metrics(metrics: Any) -> Iterator[str]:
    if not isinstance(metrics, Mapping) or not metrics:
        yield f"`metrics` must be a mapping of at least one split, but is {metrics!r}"
        return
    for split, values in metrics.items():
        yield from _check_each(f"metrics.{split}", values, _is_number, "a finite number")
        if isinstance(values, Mapping):
            step = values.get("step")
            yield from _check(f"metrics.{split}.step", step, _is_count, "a whole number of 0 or more")


def _check_measured(where: str, primary: Any, metrics: Any) -> Iterator[str]:
    if not isinstance(primary, Primary):
        yield f"`{where}` must have `name`, `split`, `value` and `higher_is_better`, but is {primary!r}"
        return
    if not isinstance(primary.higher_is_better, bool):
        yield f"`{where}.higher_is_better` must be true or false, but is {primary.higher_is_better!r}"
    try:
        value = metrics[primary.split][primary.name]
    except (KeyError, TypeError):
        yield f"`{where}` must be one of `metrics`, but {primary.split!r} has no {primary.name!r} there"
        return
    if primary.value != value:
        yield f"`{where}.value` must be `metrics.{primary.split}.{primary.name}` = {value!r}, but is {primary.value!r}"
