"""The drawings, with Matplotlib: what goes in is numbers and words, what comes out is a figure.

Sizes are in inches; one inch is 72 units of the SVG.
"""

import textwrap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from s3prl_interfaces.results.report.curves import Curve, thinned
from s3prl_interfaces.results.report.markup import clean
from s3prl_interfaces.results.report.palette import (
    BETTER,
    DASHES,
    GRID,
    INK,
    LINES,
    MARKERS,
    MUTED,
    WEIGHT,
    WORSE,
)

CURVE_POINTS = 200
"""More points than that cannot be seen, and only make the page larger."""
MARKED_POINTS = 40
STRONGEST = 0.8
"""Opacity of the largest value of a map: numbers are written over it."""
TITLE_WIDTH = 56
"""Characters of a title in a line."""
CELL = 0.34
ROW_HEIGHT = 0.34
NAME_WIDTH = 24
"""Characters of a row's name in a line."""
BELOW = 0.85
"""Room for the layers' numbers and the scale, below a map."""
SCALE_CELLS = 5
WRITTEN_LAYERS = 30
"""Maps of more layers have no numbers in their cells."""

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.prop_cycle": "cycler('color', ['#0072b2'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text: it can be searched, copied and read aloud
    "text.color": INK,
    "text.parse_math": False,  # a dollar in an option is a dollar
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


def styled() -> AbstractContextManager[None]:
    """Return the style to draw and save in, whatever the user's own settings of Matplotlib are."""
    return matplotlib.style.context(["default", STYLE])


def draw_curves(title: str, axis: str, curves: Mapping[str, Curve], places: Mapping[str, int], scale: float) -> Figure:
    """Draw one line for each interface over training steps, with a band from the lowest to the highest run.

    Args:
        title: Of the figure.
        axis: The quantity with its unit.
        curves: Label -> curve; at least one.
        places: Label -> its place among the page's colours, so that an interface has one colour everywhere.
        scale: What values are multiplied by.
    """
    names = {label: _wrapped(label, 50) for label in curves}
    columns = 2 if max(map(len, names.values())) <= 22 else 1
    rows = sum(name.count("\n") + 1 for name in names.values()) / columns
    with styled():
        # Many bands over each other hide what is under them.
        band = 0.16 if len(curves) <= 3 else 0.08
        figure = Figure(figsize=(5.0, 2.7 + 0.18 * rows), layout="constrained")
        axes = figure.add_subplot()
        for label, full in curves.items():
            curve = thinned(full, CURVE_POINTS)
            place = places[label]
            color = LINES[place % len(LINES)]
            axes.plot(
                curve.steps,
                [scale * value for value in curve.mean],
                color=color,
                linestyle=DASHES[place // len(LINES) % len(DASHES)],
                marker=MARKERS[place % len(MARKERS)],
                markevery=max(1, len(curve.steps) // MARKED_POINTS),
                label=names[label],
            )
            if curve.runs > 1:
                low, high = ([scale * value for value in values] for values in (curve.low, curve.high))
                axes.fill_between(curve.steps, low, high, color=color, alpha=band, linewidth=0)
        axes.set_title(_title(title))
        axes.set_xlabel("training step")
        axes.set_ylabel(clean(axis))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
        figure.legend(loc="outside lower left", handlelength=2.5, ncols=columns)
    return figure


def draw_lost(title: str, unit: str, rows: Mapping[str, Sequence[float]]) -> Figure:
    """Draw a map, interfaces x layers, of the score lost without each layer.

    Args:
        title: Of the figure.
        unit: Of the values, for the scale.
        rows: Label -> (L,) values; positive: worse without the layer. At least one.
    """
    largest = max(abs(value) for row in rows.values() for value in row)
    layers = max(map(len, rows.values()))
    with styled():
        figure, axes, scale = _map(title, list(rows), layers, least=1.25)
        _fill(axes, rows, largest, lambda value: WORSE if value > 0 else BETTER, written=_signed)
        steps = [largest * step / 2 for step in range(-2, 3)]
        _fill(scale, {"": steps}, largest, lambda value: WORSE if value > 0 else BETTER, written=_signed)
        _name_scale(scale, "better without it", f"worse without it ({unit})")
    return figure


def draw_bars(title: str, axis: str, means: Sequence[float], spreads: Sequence[float] | None) -> Figure:
    """Draw one bar for each layer, with the standard deviation as a whisker.

    Args:
        title: Of the figure.
        axis: The quantity.
        means: (L,) values.
        spreads: (L,) standard deviations, ``None`` if there are none.
    """
    with styled():
        figure = Figure(figsize=(5.0, 2.5), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(range(len(means)), means, width=0.78, color=WEIGHT, zorder=2)
        if spreads is not None:
            axes.errorbar(range(len(means)), means, spreads, fmt="none", ecolor=INK, elinewidth=0.9, zorder=3)
        if abs(sum(means) - 1) < 1e-3:
            axes.axhline(1 / len(means), color=INK, linestyle="--", linewidth=0.9, zorder=4)
            axes.annotate(
                "all alike", (1, 1 / len(means)), (2, 0), xycoords=("axes fraction", "data"),
                textcoords="offset points", fontsize=8, va="center",
            )  # fmt: skip
        axes.grid(visible=False, axis="x")
        axes.set_title(_title(title))
        axes.set_xlabel("layer")
        axes.set_ylabel(clean(axis))
        axes.xaxis.set_major_locator(MaxNLocator(13, integer=True))
        axes.set_xlim(-0.7, len(means) - 0.3)
    return figure


def draw_weights(title: str, rows: Mapping[str, Sequence[float]]) -> Figure:
    """Draw a map, groups or heads x layers, of weights.

    Args:
        title: Of the figure.
        rows: Name -> (L,) values. At least one.
    """
    largest = max(abs(value) for row in rows.values() for value in row)
    with styled():
        figure, axes, scale = _map(title, list(rows), max(map(len, rows.values())), least=0.6)
        _fill(axes, rows, largest, lambda _: WEIGHT, written=_share)
        _fill(scale, {"": [largest * step / 4 for step in range(5)]}, largest, lambda _: WEIGHT, written=_share)
        _name_scale(scale, "weight", "")
    return figure


def _map(title: str, names: Sequence[str], layers: int, least: float) -> tuple[Figure, Axes, Axes]:
    """Lay out a map of cells of one size, and below it five cells of its scale; ``least`` room left of both."""
    title = _title(title)
    longest = max(len(line) for name in names for line in _wrapped(name, NAME_WIDTH).split("\n"))
    left, above = max(least, 0.2 + 0.078 * longest), 0.14 + 0.17 * (title.count("\n") + 1)
    wide, high = CELL * max(layers, 13), ROW_HEIGHT * len(names)
    width, height = left + wide + 0.1, BELOW + high + above
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, BELOW / height, CELL * layers / width, high / height))
    scale = figure.add_axes((left / width, 0.1 / height, CELL * SCALE_CELLS / width, 0.24 / height))
    # From the figure's edge: the longest titles need all of it.
    figure.text(0.05 / width, 1 - 0.05 / height, title, va="top", fontsize=9.5, fontweight="bold")
    return figure, axes, scale


def _fill(axes: Axes, rows: Mapping[str, Sequence[float]], largest: float, color: Any, written: Any) -> None:
    """Fill cells: the larger, the more opaque, so that nothing is the page's own background in either theme."""
    layers = max(map(len, rows.values()))
    for line, row in enumerate(rows.values()):
        for layer, value in enumerate(row):
            opacity = STRONGEST * abs(value) / largest if largest else 0.0
            cell = Rectangle(
                (layer, line - 0.5), 1, 1, facecolor=(color(value), opacity), edgecolor=GRID, linewidth=0.6
            )
            axes.add_patch(cell)
            if layers <= WRITTEN_LAYERS:
                axes.text(layer + 0.5, line, written(value, largest), ha="center", va="center", fontsize=7)
    axes.set_xlim(0, layers)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([layer + 0.5 for layer in range(layers)], [str(layer) for layer in range(layers)])
    axes.set_yticks(range(len(rows)), [_wrapped(name, NAME_WIDTH) for name in rows])
    axes.set_xlabel("layer")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _name_scale(scale: Axes, left: str, right: str) -> None:
    scale.set_axis_off()
    scale.text(-0.3, 0, clean(left), ha="right", va="center", fontsize=8.5)
    scale.text(SCALE_CELLS + 0.3, 0, clean(right), ha="left", va="center", fontsize=8.5)


def _signed(value: float, largest: float) -> str:
    """Write a value in at most five characters; what is shown as nothing has no sign."""
    text = f"{value:+.{_decimals(largest)}f}"
    return "0" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}").replace("0.", ".", int(abs(value) < 1))


def _share(value: float, largest: float) -> str:
    """Write a weight in at most four characters; what is exactly nothing is of no weight by design."""
    if value == 0:
        return "0"
    text = f"{value:.{max(2, _decimals(largest))}f}"
    return text.removeprefix("0") if abs(value) < 1 else text


def _decimals(largest: float) -> int:
    return next((digits for digits, bound in enumerate((99.95, 0.995, 0.0995)) if largest >= bound), 3)


def _title(text: str) -> str:
    return "\n".join(textwrap.wrap(clean(text), TITLE_WIDTH)) or " "


def _wrapped(label: str, width: int) -> str:
    """Break a long label, first before its options; what does not fit on three lines is in the table."""
    label = clean(label)
    if len(label) <= width:
        return label
    name, bracket, options = label.partition("(")
    lines = [*textwrap.wrap(name, width), *textwrap.wrap(bracket + options, width)]
    return "\n".join(lines if len(lines) <= 3 else [*lines[:2], lines[2][: width - 2] + " …"])
