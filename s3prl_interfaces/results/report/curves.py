"""Learning curves, from the TensorBoard event files that lie in a run's folder."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from statistics import fmean

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.record import RunResult

Series = Mapping[int, float]
"""Training step -> value."""


@dataclass(frozen=True)
class Events:
    """The scalars of one run, over all its event files."""

    scalars: Mapping[str, Series]
    """``<split>-<metric>`` -> series, in the order of steps."""
    days: tuple[str, ...]
    """The first and the last day (UTC) that something was written on."""


@dataclass(frozen=True, order=True)
class Measure:
    """What a learning curve shows."""

    split: str
    metric: str
    higher_is_better: bool


@dataclass(frozen=True)
class Curve:
    """The mean over runs, at the steps that all of them have."""

    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    runs: int


def read_events(folder: Path) -> Events | None:
    """Read a run's event files, ``None`` if there are no scalars in them.

    A continued run has several files and may have done some steps twice: the newest value of a step counts. Values
    that are not finite are left out.

    Raises:
        ResultError: A file is not an event file.
    """
    scalars: dict[str, dict[int, tuple[float, float]]] = defaultdict(dict)
    for path in sorted(folder.glob("*tfevents*")):
        for tag, step, time, value in _scalars(path):
            series = scalars[tag.rsplit("/", 1)[-1]]
            if step not in series or time >= series[step][0]:
                series[step] = (time, value)
    if not scalars:
        return None
    times = [time for series in scalars.values() for time, _ in series.values()]
    return Events(
        {
            name: {step: value for step, (_, value) in sorted(series.items()) if math.isfinite(value)}
            for name, series in sorted(scalars.items())
        },
        tuple(_day(time) for time in (min(times), max(times))),
    )


def chosen_measure(result: RunResult) -> Measure:
    """Return what chose the weights: the dev metric, or for SUPERB's SV the one on test.

    Results of older releases do not tell: for them it is the primary metric on dev, or what it was measured on if
    dev was not scored.
    """
    if result.selection is not None:
        chosen = result.selection
        return Measure(chosen.split, chosen.name, chosen.higher_is_better)
    primary = result.primary
    dev = sorted(
        split for split, values in result.metrics.items() if split.startswith("dev") and primary.name in values
    )
    return Measure(dev[0] if dev else primary.split, primary.name, primary.higher_is_better)


def training_loss(events: Events) -> Series:
    """Return the training loss, empty if none was logged. IC calls it ``intent_loss``."""
    names = sorted(name for name in events.scalars if name.startswith("train-") and name.endswith("loss"))
    return events.scalars[min(names, key=len)] if names else {}


def average(runs: Sequence[Series]) -> Curve | None:
    """Average over runs at the steps that all of them have, ``None`` if there is no such step."""
    if not runs:
        return None
    steps = sorted(set.intersection(*(set(run) for run in runs)))
    if not steps:
        return None
    values = [[run[step] for run in runs] for step in steps]
    return Curve(
        tuple(steps),
        tuple(map(fmean, values)),
        tuple(map(min, values)),
        tuple(map(max, values)),
        len(runs),
    )


def thinned(curve: Curve, limit: int) -> Curve:
    """Keep at most ``limit`` points (2 or more), evenly spread, the first and the last among them."""
    count = len(curve.steps)
    if count <= limit:
        return curve
    kept = [round(place * (count - 1) / (limit - 1)) for place in range(limit)]
    return Curve(
        tuple(curve.steps[index] for index in kept),
        tuple(curve.mean[index] for index in kept),
        tuple(curve.low[index] for index in kept),
        tuple(curve.high[index] for index in kept),
        curve.runs,
    )


def _scalars(path: Path) -> list[tuple[str, int, float, float]]:
    """Return tag, step, seconds since 1970 and value of every scalar of one file."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    # One file at a time, so that a broken one can be named. 0: keep every value.
    accumulator = EventAccumulator(str(path), size_guidance={SCALARS: 0})
    try:
        accumulator.Reload()
    except Exception as error:  # a broken file can fail in the reader, in protobuf or in NumPy
        raise ResultError(f"{path} is not an event file of TensorBoard ({error}).") from error
    return [
        (tag, event.step, event.wall_time, event.value)
        for tag in accumulator.Tags()[SCALARS]
        for event in accumulator.Scalars(tag)
    ]


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).date().isoformat()
