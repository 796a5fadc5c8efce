"""From numbers to pictures: what is drawn, how it is called, and what it says in words."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeVar

from matplotlib.figure import Figure

from s3prl_interfaces.results.board import SHOWN_AS_PERCENT
from s3prl_interfaces.results.layers import LayerResult
from s3prl_interfaces.results.report.curves import Curve, Events, Measure, Series, average, chosen_measure, thinned
from s3prl_interfaces.results.report.curves import training_loss as loss_of
from s3prl_interfaces.results.report.figures import draw_bars, draw_curves, draw_lost, draw_weights
from s3prl_interfaces.results.runs import Run

LISTED_STEPS = 100
"""Rows of a table of a learning curve."""

Item = TypeVar("Item")
Key = TypeVar("Key")


@dataclass(frozen=True)
class Seen:
    """A run that counts, and what lies beside its result."""

    label: str
    """Of its row of the leaderboard."""
    run: Run
    events: Events | None
    layers: LayerResult | None


@dataclass(frozen=True)
class Numbers:
    """What a figure shows, as a table. The first of each row is its heading."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A figure and its words."""

    name: str
    """For ids and file names; not yet unique."""
    title: str
    caption: str
    description: str
    """What it shows, for who cannot see it."""
    figure: Figure
    numbers: Numbers
    is_map: bool = False
    """Cells with numbers in them, which a narrow page may not shrink."""


def measure_pictures(task: str, seen: Sequence[Seen], places: Mapping[str, int]) -> list[Picture]:
    """Draw how the metric that chose the weights went: one picture for each such metric."""
    pictures = []
    by_measure = _grouped(seen, lambda one: chosen_measure(one.run.result))
    for measure, runs in sorted(by_measure.items()):
        name = f"{measure.split}-{measure.metric}"
        series = _series(runs, _named(name))
        scale = _scale(measure.metric)
        title = f"{task}: {measure.split} {measure.metric}"
        direction = "higher" if measure.higher_is_better else "lower"
        caption = f"{measure.metric} on {measure.split} over training steps; {direction} is better."
        pictures += _curve_picture(title, caption, _axis(measure), series, places, scale)
    return pictures


def loss_pictures(task: str, seen: Sequence[Seen], places: Mapping[str, int]) -> list[Picture]:
    """Draw the training loss."""
    caption = "Loss on the training data over training steps."
    return _curve_picture(f"{task}: training loss", caption, "training loss ↓", _series(seen, loss_of), places, 1)


def lost_pictures(task: str, seen: Sequence[Seen], places: Mapping[str, int]) -> list[Picture]:
    """Draw the score lost without each layer: all interfaces in one map."""
    measured = [(one.label, one.layers) for one in seen if one.layers is not None]
    maps = _grouped(measured, lambda one: (one[1].split, one[1].metric, one[1].mean_over, len(one[1].without)))
    return [
        _lost_picture(task, split, metric, mean_over, _grouped(runs, lambda one: one[0]), places)
        for (split, metric, mean_over, _), runs in sorted(maps.items())
    ]


def _lost_picture(
    task: str,
    split: str,
    metric: str,
    mean_over: str,
    by_label: Mapping[str, Sequence[tuple[str, LayerResult]]],
    places: Mapping[str, int],
) -> Picture:
    scale = _scale(metric)
    means, spreads = {}, {}
    for label in sorted(by_label, key=lambda label: places[label]):
        lost = [[scale * value for value in layers.lost] for _, layers in by_label[label]]
        means[label], spreads[label] = _means(lost), _spreads(lost)
    unit = "percentage points" if scale == 100 else metric
    title = f"{task}: {metric} lost on {split} without each layer"
    mean = "its mean over time" if mean_over == "utterance" else f"its mean over all of {split}"
    most = {label: row.index(max(row)) for label, row in means.items()}
    return Picture(
        name=f"{task}-lost-{split}-{metric}",
        title=title,
        caption=f"The score with every layer, compared with the score when one layer is replaced by {mean}, in {unit}. "
        f"Positive: worse without the layer.{_over_runs(by_label.values())}",
        description="A map of interfaces by layers. The layer that is missed most: "
        + "; ".join(f"{label}: layer {layer} ({means[label][layer]:.2f})" for label, layer in most.items())
        + ".",
        figure=draw_lost(title, unit, means),
        numbers=_layer_numbers("interface", means, spreads, digits=2),
        is_map=True,
    )


def weight_pictures(task: str, seen: Sequence[Seen], places: Mapping[str, int]) -> list[Picture]:
    """Draw the weights of layers of each interface that has some: bars for one row, a map for several."""
    weighted = [(one.label, one.layers.weights) for one in seen if one.layers is not None and one.layers.weights]
    pictures = []
    for (_, label, what, rows, _), runs in sorted(
        _grouped(
            weighted, lambda one: (places[one[0]], one[0], one[1].what, one[1].rows, len(one[1].values[0]))
        ).items()
    ):
        # Two rows may have one name; a figure needs them both.
        names = [f"{name} ({row})" if rows.count(name) > 1 else name for row, name in enumerate(rows)]
        means = {name: _means([weights.values[row] for _, weights in runs]) for row, name in enumerate(names)}
        spreads = {name: _spreads([weights.values[row] for _, weights in runs]) for row, name in enumerate(names)}
        title = f"{task}: {what}, {label}"
        largest = {name: row.index(max(row)) for name, row in means.items()}
        is_map = len(rows) > 1
        pictures.append(
            Picture(
                name=f"{task}-weights-{label}",
                title=title,
                caption=f"{what[:1].upper()}{what[1:]} of {label}.{_over_runs([runs])}",
                description=f"A {'map of rows by layers' if is_map else 'bar chart'}. The largest: "
                + "; ".join(f"{name}: layer {layer} ({means[name][layer]:.2f})" for name, layer in largest.items())
                + ".",
                figure=draw_weights(title, means)
                if is_map
                else draw_bars(title, "weight", means[names[0]], spreads[names[0]]),
                numbers=_layer_numbers("row", means, spreads, digits=3),
                is_map=is_map,
            )
        )
    return pictures


def _layer_numbers(
    corner: str, means: Mapping[str, list[float]], spreads: Mapping[str, list[float] | None], digits: int
) -> Numbers:
    def written(values: list[float]) -> list[str]:
        # No sign on what is shown as nothing.
        return [f"{round(value, digits) + 0.0:.{digits}f}" for value in values]

    rows = []
    for name, row in means.items():
        spread = spreads[name]
        cells = written(row)
        if spread is not None:
            cells = [f"{mean} ± {std}" for mean, std in zip(cells, written(spread), strict=True)]
        rows.append((name, *cells))
    return Numbers((corner, *(f"layer {layer}" for layer in range(len(rows[0]) - 1))), tuple(rows))


def _grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Group, in the order of first appearance."""
    groups: dict[Key, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _named(name: str) -> Callable[[Events], Series]:
    return lambda events: events.scalars.get(name, {})


def _series(seen: Iterable[Seen], pick: Callable[[Events], Series]) -> dict[str, list[Series]]:
    by_label: dict[str, list[Series]] = defaultdict(list)
    for one in seen:
        series = pick(one.events) if one.events else {}
        if series:
            by_label[one.label].append(series)
    return by_label


def _curve_picture(
    title: str,
    caption: str,
    axis: str,
    series: Mapping[str, Sequence[Series]],
    places: Mapping[str, int],
    scale: int,
) -> list[Picture]:
    """Return one picture, or none if there is nothing to draw."""
    averages = {label: average(series[label]) for label in sorted(series, key=lambda label: places[label])}
    curves = {label: curve for label, curve in averages.items() if curve}
    if not curves:
        return []
    last = "; ".join(f"{label} {scale * curve.mean[-1]:.2f}" for label, curve in curves.items())
    first_step, last_step = (pick(step for c in curves.values() for step in c.steps) for pick in (min, max))
    return [
        Picture(
            name=title,
            title=title,
            caption=f"{caption}{_over_runs(series.values(), band=True)}",
            description=f"A line chart of {axis}, steps {first_step:,} to {last_step:,}. Last values: {last}.",
            figure=draw_curves(title, axis, curves, places, scale),
            numbers=_curve_numbers(curves, scale),
        )
    ]


def _curve_numbers(curves: Mapping[str, Curve], scale: int) -> Numbers:
    def written(value: float) -> str:
        small = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 2
        return f"{scale * value:.{2 if scale == 100 else small}f}"

    by_step: dict[int, dict[str, str]] = defaultdict(dict)
    for label, full in curves.items():
        curve = thinned(full, LISTED_STEPS)
        for step, *values in zip(curve.steps, curve.mean, curve.low, curve.high, strict=True):
            mean, low, high = map(written, values)
            by_step[step][label] = mean if curve.runs == 1 else f"{mean} ({low} to {high})"
    rows = tuple((f"{step:,}", *(by_step[step].get(label, "") for label in curves)) for step in sorted(by_step))
    return Numbers(("step", *curves), rows)


def _over_runs(groups: Iterable[Sequence[object]], band: bool = False) -> str:
    counts = sorted({len(group) for group in groups})
    if counts[-1] == 1:
        return ""
    over = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    spread = "the band spans the lowest and the highest run" if band else "±: sample standard deviation"
    return f" Mean over {over} runs (seeds and folds) of each interface, {spread}."


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    """Average over runs, for each layer."""
    return [fmean(column) for column in zip(*rows, strict=True)]


def _spreads(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Return the sample standard deviation for each layer, ``None`` for a single run."""
    return [stdev(column) for column in zip(*rows, strict=True)] if len(rows) > 1 else None


def _scale(metric: str) -> int:
    return 100 if metric in SHOWN_AS_PERCENT else 1


def _axis(measure: Measure) -> str:
    unit = " (%)" if _scale(measure.metric) == 100 else ""
    return f"{measure.metric}{unit} {'↑' if measure.higher_is_better else '↓'}"
