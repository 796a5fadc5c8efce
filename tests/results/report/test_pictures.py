"""The numbers beside each figure, and that the figure draws the same."""

from dataclasses import replace
from pathlib import Path

import matplotlib.colors
import pytest

from s3prl_interfaces.results import Run
from s3prl_interfaces.results.layers import LayerResult, Weights
from s3prl_interfaces.results.report import figures
from s3prl_interfaces.results.report.curves import Curve, Events
from s3prl_interfaces.results.report.palette import BETTER, LINES, WORSE
from s3prl_interfaces.results.report.pictures import (
    Seen,
    loss_pictures,
    lost_pictures,
    measure_pictures,
    weight_pictures,
)

MINUS = "\N{MINUS SIGN}"
PLACES = {"weighted_sum": 0, "hconv": 1, "concat": 2}
LAYERS = LayerResult(
    split="dev",
    metric="acc",
    higher_is_better=True,
    score=0.9,
    without=(0.8, 0.95, 0.7),
    step=20,
    checkpoint="dev-best.ckpt",
)


@pytest.fixture
def see(make_result):
    """A run that was looked at."""

    def make(label, scalars=None, layers=None, **fields):
        run = Run(Path(label), make_result(interface=label, **fields))
        return Seen(label, run, None if scalars is None else Events(scalars, ()), layers)

    return make


def lines(picture):
    """What is drawn: label -> (steps, values)."""
    return {
        line.get_label(): tuple(map(list, (line.get_xdata(), line.get_ydata())))
        for line in picture.figure.axes[0].lines
    }


def test_curve_of_one_run(see):
    dev = {"metrics": {"dev": {"acc": 0.5, "step": 1}, "test": {"acc": 0.5, "step": 1}}}
    seen = [
        see("hconv", {"dev-acc": {10: 0.5, 20: 0.625}}, **dev),
        see("weighted_sum", {"dev-acc": {10: 0.25, 30: 0.75}, "test-acc": {10: 1.0}}, **dev),
        see("concat", None, **dev),
    ]
    (picture,) = measure_pictures("ic", seen, PLACES)
    assert picture.title == "ic: dev acc"
    assert lines(picture) == {"weighted_sum": ([10, 30], [25, 75]), "hconv": ([10, 20], [50, 62.5])}
    assert picture.numbers.headings == ("step", "weighted_sum", "hconv")
    assert picture.numbers.rows == (("10", "25.00", "50.00"), ("20", "", "62.50"), ("30", "75.00", ""))
    assert picture.caption == "acc on dev over training steps; higher is better."
    assert "steps 10 to 30" in picture.description
    assert "weighted_sum 75.00; hconv 62.50" in picture.description
    assert picture.figure.axes[0].get_ylabel() == "acc (%) ↑"
    assert [line.get_color() for line in picture.figure.axes[0].lines] == [LINES[0], LINES[1]]
    assert not picture.figure.axes[0].collections


def test_curve_of_several_runs_has_a_band(see):
    wer = {"metric": "wer", "split": "dev-clean", "higher_is_better": False}
    values = [{1000: 8.0, 2000: 6.0}, {1000: 9.0, 2000: 7.5, 3000: 1.0}]
    seen = [see("hconv", {"dev-clean-wer": series}, **wer) for series in values]
    (picture,) = measure_pictures("asr", seen, PLACES)
    assert lines(picture) == {"hconv": ([1000, 2000], [8.5, 6.75])}
    assert picture.numbers.rows == (("1,000", "8.500 (8.000 to 9.000)"), ("2,000", "6.750 (6.000 to 7.500)"))
    assert picture.figure.axes[0].get_ylabel() == "wer ↓"
    (band,) = picture.figure.axes[0].collections
    assert {tuple(corner) for corner in band.get_paths()[0].vertices} == {(1000, 8), (1000, 9), (2000, 6), (2000, 7.5)}
    assert "lower is better. Mean over 2 runs" in picture.caption
    assert "the band spans the lowest and the highest run" in picture.caption


def test_one_curve_for_each_metric_that_chose(see):
    pictures = measure_pictures(
        "sv", [see("hconv", {"test-EER": {1: 0.5}, "dev-acc": {1: 0.25}}, **fields) for fields in (
            {"metric": "EER", "higher_is_better": False}, {"split": "dev"},
        )], PLACES,
    )  # fmt: skip
    assert [(picture.title, lines(picture)) for picture in pictures] == [
        ("sv: dev acc", {"hconv": ([1], [25])}),
        ("sv: test EER", {"hconv": ([1], [50])}),
    ]


def test_training_loss(see):
    (picture,) = loss_pictures("ic", [see("hconv", {"train-intent_loss": {5: 31.0, 10: 0.5}})], PLACES)
    assert lines(picture) == {"hconv": ([5, 10], [31.0, 0.5])}
    assert picture.title == "ic: training loss"
    assert picture.numbers.rows == (("5", "31.00"), ("10", "0.5000"))


def test_nothing_to_draw(see):
    seen = [see("hconv", {"dev-loss": {1: 1.0}}), see("hconv")]
    assert measure_pictures("ic", seen, PLACES) == []
    assert loss_pictures("ic", seen, PLACES) == []
    assert lost_pictures("ic", seen, PLACES) == []
    assert weight_pictures("ic", seen, PLACES) == []
    # Two seeds without a step in common.
    apart = [see("hconv", {"train-loss": {step: 1.0}}) for step in (1, 2)]
    assert loss_pictures("ic", apart, PLACES) == []


def test_long_curves_are_thinned():
    steps = tuple(range(10_000))
    values = tuple(map(float, steps))
    figure = figures.draw_curves("t", "loss", {"hconv": Curve(steps, values, values, values, 1)}, PLACES, 1)
    drawn = figure.axes[0].lines[0].get_xdata()
    assert len(drawn) == 200
    assert (drawn[0], drawn[-1]) == (0, 9_999)


def cells(axes):
    """What is written in the cells of a map, and their colours with opacity."""
    colors = [(matplotlib.colors.to_hex(cell.get_facecolor()), cell.get_facecolor()[3]) for cell in axes.patches]
    return [text.get_text() for text in axes.texts], colors


def test_lost_scores(see):
    """By the formula: in percentage points, score - without for an accuracy."""
    seen = [see("hconv", layers=LAYERS), see("weighted_sum", layers=replace(LAYERS, score=0.85))]
    (picture,) = lost_pictures("ic", seen, PLACES)
    assert picture.title == "ic: acc lost on dev without each layer"
    assert picture.numbers.headings == ("interface", "layer 0", "layer 1", "layer 2")
    assert picture.numbers.rows == (
        ("weighted_sum", "5.00", "-10.00", "15.00"),
        ("hconv", "10.00", "-5.00", "20.00"),
    )
    assert "weighted_sum: layer 2 (15.00); hconv: layer 2 (20.00)" in picture.description
    assert "percentage points" in picture.caption
    assert "its mean over time" in picture.caption
    assert "runs" not in picture.caption
    axes, scale = picture.figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["weighted_sum", "hconv"]
    texts, colors = cells(axes)
    assert texts == ["+5.0", MINUS + "10.0", "+15.0", "+10.0", MINUS + "5.0", "+20.0"]
    assert colors[4] == (BETTER, pytest.approx(0.2))
    assert colors[5] == (WORSE, pytest.approx(0.8))
    texts, _ = cells(scale)
    assert texts == [
        MINUS + "20.0",
        MINUS + "10.0",
        "0",
        "+10.0",
        "+20.0",
        "better without it",
        "worse without it (percentage points)",
    ]


def test_lost_errors_are_turned_round(see):
    """without - score for an error rate, in its own unit."""
    wer = replace(LAYERS, metric="wer", higher_is_better=False, score=7.0, without=(8.5, 6.0, 7.0))
    (picture,) = lost_pictures("asr", [see("hconv", layers=wer)], PLACES)
    assert picture.numbers.rows == (("hconv", "1.50", "-1.00", "0.00"),)
    assert cells(picture.figure.axes[0])[0] == ["+1.5", MINUS + "1.0", "0"]
    assert "in wer." in picture.caption


def test_lost_over_seeds(see):
    """Mean and sample standard deviation: of 10, 20 and 30 these are 20 and 10."""
    seen = [see("hconv", layers=replace(LAYERS, score=score, without=(0.5, 0.5))) for score in (0.6, 0.7, 0.8)]
    (picture,) = lost_pictures("ic", [*seen, see("concat", layers=replace(LAYERS, without=(0.9, 0.9)))], PLACES)
    assert picture.numbers.rows == (("hconv", "20.00 ± 10.00", "20.00 ± 10.00"), ("concat", "0.00", "0.00"))
    assert "Mean over 1 to 3 runs (seeds and folds)" in picture.caption


def test_what_cannot_be_compared_is_apart(see):
    """Another split, metric, number of layers or way to average is another map."""
    others = [
        {"split": "test"},
        {"metric": "balanced_acc"},
        {"without": (0.8, 0.95)},
        {"mean_over": "split"},
    ]
    seen = [see("hconv", layers=replace(LAYERS, **fields)) for fields in ({}, *others)]
    pictures = lost_pictures("ic", seen, PLACES)
    assert len(pictures) == 5
    assert sum("its mean over all of dev" in picture.caption for picture in pictures) == 1


def test_nothing_lost(see):
    (picture,) = lost_pictures("ic", [see("hconv", layers=replace(LAYERS, without=(0.9, 0.9)))], PLACES)
    texts, colors = cells(picture.figure.axes[0])
    assert texts == ["0", "0"]
    assert [opacity for _, opacity in colors] == [0, 0]


def test_many_layers_have_no_numbers_in_their_cells(see):
    (picture,) = lost_pictures("ic", [see("hconv", layers=replace(LAYERS, without=(0.8,) * 49))], PLACES)
    texts, colors = cells(picture.figure.axes[0])
    assert texts == []
    assert len(colors) == 49


def test_one_row_of_weights_is_bars(see):
    layers = [
        replace(LAYERS, weights=Weights(what="softmax weights", rows=("weights",), values=(values,)))
        for values in ((0.2, 0.3, 0.5), (0.4, 0.3, 0.3))
    ]
    (picture,) = weight_pictures("ic", [see("weighted_sum", layers=one) for one in layers], PLACES)
    assert picture.title == "ic: softmax weights, weighted_sum"
    assert not picture.is_map
    assert picture.numbers.rows == (("weights", "0.300 ± 0.141", "0.300 ± 0.000", "0.400 ± 0.141"),)
    bars = picture.figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx([0.3, 0.3, 0.4])
    assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([0, 1, 2])
    assert "weights: layer 2 (0.40)" in picture.description
    assert "Mean over 2 runs" in picture.caption
    # The whiskers, and the line of three equal weights.
    (whiskers,) = picture.figure.axes[0].collections
    assert whiskers.get_segments()[0][:, 1] == pytest.approx([0.3 - 0.1414, 0.3 + 0.1414], abs=1e-3)
    assert picture.figure.axes[0].lines[-1].get_ydata() == pytest.approx([1 / 3, 1 / 3])


def test_weights_that_do_not_sum_to_one_have_no_line(see):
    weights = Weights(what="norms", rows=("norms",), values=((2.0, 3.0, 5.0),))
    (picture,) = weight_pictures("ic", [see("concat", layers=replace(LAYERS, weights=weights))], PLACES)
    assert not picture.figure.axes[0].lines


def test_several_rows_of_weights_are_a_map(see):
    weights = Weights(
        what="softmax weights of each group", rows=("group", "group"), values=((0.25, 0.75, 0.0), (0.0, 0.0, 1.0))
    )
    (picture,) = weight_pictures("ic", [see("hconv", layers=replace(LAYERS, weights=weights))], PLACES)
    assert picture.is_map
    assert picture.numbers.headings == ("row", "layer 0", "layer 1", "layer 2")
    # Two rows of one name are both there.
    assert picture.numbers.rows == (
        ("group (0)", "0.250", "0.750", "0.000"),
        ("group (1)", "0.000", "0.000", "1.000"),
    )
    texts, colors = cells(picture.figure.axes[0])
    assert texts == [".25", ".75", "0", "0", "0", "1.00"]
    assert [opacity for _, opacity in colors] == pytest.approx([0.2, 0.6, 0, 0, 0, 0.8])


@pytest.mark.parametrize(
    ("value", "largest", "text"),
    [
        (1.25, 12.0, "+1.2"),
        (-0.04, 12.0, "0"),
        (0.05, 0.5, "+.05"),
        (-0.25, 0.5, MINUS + ".25"),
        (0.0123, 0.05, "+.012"),
        (123.4, 400.0, "+123"),
        (-10.04, 12.0, MINUS + "10.0"),
        (0.0, 0.0, "0"),
    ],
)
def test_numbers_in_cells(value, largest, text):
    assert figures._signed(value, largest) == text
    assert len(text) <= 5


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("hconv", "hconv"),
        ("grouped_weighted_sum(groups=4)", "grouped_weighted_sum\n(groups=4)"),
        ("x" * 30, "x" * 24 + "\n" + "x" * 6),
        ("hconv(" + "kernel_size=3, " * 6 + ")", "hconv\n(kernel_size=3,\nkernel_size=3, …"),
    ],
)
def test_long_names(label, text):
    wrapped = figures._wrapped(label, 24)
    assert all(len(line) <= 26 for line in wrapped.split("\n"))
    if "…" in text:
        assert wrapped.endswith("…")
        assert wrapped.count("\n") == 2
    else:
        assert wrapped == text
