"""Differences tested over utterances, and corrected for how many there are in a column."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3prl_interfaces.results import Found, Run, add_comparisons, build_leaderboard
from s3prl_interfaces.results.comparisons import holm
from s3prl_interfaces.results.predictions import read_scores
from s3prl_interfaces.results.significance import compare


@pytest.fixture
def make_run(make_result, tmp_path):
    """Make a run of KS with its predictions: a row of ones for right answers and zeros for wrong ones."""

    def make(right, name, *, fold=None, metric="acc", **fields):
        folder = tmp_path / name
        folder.mkdir()
        part = "test" if fold is None else f"test_{fold}"
        lines = [(f"u{number:03}", "yes" if digit == "1" else "no") for number, digit in enumerate(right)]
        (folder / f"{part}_predict.txt").write_text("".join(f"{name} {said}\n" for name, said in lines))
        (folder / f"{part}_truth.txt").write_text("".join(f"{name} yes\n" for name, _ in lines))
        fields = {"task": "ks" if fold is None else "er", "fold": fold, "metric": metric, **fields}
        return Run(folder, make_result(right.count("1") / len(right), **fields))

    return make


def _compare(*runs, baseline="weighted_sum"):
    (table,) = add_comparisons(build_leaderboard(Found(runs, ()), baseline)).tables
    return table


def _cells(table, index=0):
    return {row.label: row.cells[index] for row in table.rows}


LOW, MIDDLE, HIGH = "10" * 50, "110" * 33 + "1", "1" * 100


def test_every_row_is_compared_with_the_baseline(make_run):
    runs = [
        make_run(LOW, "a"),
        make_run(HIGH, "b", interface="hconv"),
        make_run("01" * 50, "c", interface="concat"),
    ]
    table = _compare(*runs)
    cells = _cells(table)
    assert cells["weighted_sum"].comparison is None
    assert cells["weighted_sum"].p_corrected is None
    ours, baseline = ([[read_scores(run.result, run.folder)]] for run in (runs[1], runs[0]))
    assert cells["hconv"].comparison == compare(ours, baseline)
    assert cells["hconv"].comparison.difference == pytest.approx(cells["hconv"].difference)
    assert (cells["hconv"].is_significant, cells["concat"].is_significant) == (True, False)
    assert cells["concat"].comparison.low < 0 < cells["concat"].comparison.high
    assert cells["hconv"].p_corrected == 2 * cells["hconv"].comparison.p_value
    assert cells["concat"].p_corrected == cells["concat"].comparison.p_value
    assert table.notes == ()


def test_the_correction_can_take_a_mark_away(make_run):
    """Four right answers more in a hundred: p is below 0.05, and above it after a correction for four."""
    better = "1" * 8 + LOW[8:]
    rows = {"hconv": better, "concat": LOW, "last_layer": LOW, "cls_pooling": LOW}
    base = make_run(LOW, "base")
    first = make_run(better, "first", interface="hconv")
    alone = _cells(_compare(base, first))["hconv"]
    assert 0.0125 < alone.comparison.p_value < 0.05
    assert alone.is_significant
    others = [make_run(right, name, interface=name) for name, right in rows.items() if name != "hconv"]
    among = _cells(_compare(base, first, *others))["hconv"]
    assert among.comparison == alone.comparison
    assert not among.is_significant


def test_seeds_and_folds_go_together(make_run):
    """The mean over folds of the mean over seeds: each seed with its own folds, in one order."""
    right = {
        ("weighted_sum", 1): (LOW, MIDDLE),
        ("weighted_sum", 2): (MIDDLE, LOW),
        ("hconv", 1): (HIGH, LOW),
        ("hconv", 2): (HIGH, MIDDLE),
    }
    runs = [
        make_run(answers, f"{interface}{seed}{fold}", interface=interface, seed=seed, fold=f"fold{fold}")
        for (interface, seed), folds in right.items()
        for fold, answers in reversed(list(enumerate(folds, start=1)))
    ]
    cell = _cells(_compare(*runs))["hconv"]
    assert cell.comparison.units == 200
    by_name = {run.folder.name: read_scores(run.result, run.folder) for run in runs}
    sides = [
        [[by_name[f"{name}{seed}{fold}"] for fold in (1, 2)] for seed in (1, 2)] for name in ("hconv", "weighted_sum")
    ]
    assert cell.comparison == compare(*sides)


def test_a_difference_below_the_spread_of_the_seeds_is_noted(make_run):
    """Significant over utterances, and yet another seed may turn it round."""
    runs = [make_run(LOW, "a", seed=1), make_run(LOW, "b", seed=2)]
    steady = [make_run(HIGH, "c", seed=1, interface="hconv"), make_run(HIGH, "d", seed=2, interface="hconv")]
    wild = [
        make_run(HIGH, "e", seed=1, interface="concat"),
        make_run("10" * 45 + "0" * 10, "f", seed=2, interface="concat"),
    ]
    table = _compare(*runs, *steady, *wild)
    cells = _cells(table)
    assert cells["hconv"].is_significant
    assert cells["concat"].is_significant
    assert cells["concat"].std > cells["concat"].difference > 0
    (note,) = table.notes
    assert note.startswith("ks: concat differs from weighted_sum significantly over these utterances, but by less than")
    (turned,) = _compare(*runs, *wild, baseline="concat").notes
    assert turned.startswith("ks: weighted_sum differs from concat")


def test_another_baseline(make_run):
    runs = [make_run(LOW, "a"), make_run(HIGH, "b", interface="hconv")]
    cells = _cells(_compare(*runs, baseline="hconv"))
    assert cells["hconv"].comparison is None
    assert cells["weighted_sum"].comparison.difference == pytest.approx(-0.5)


def test_missing_predictions_are_noted(make_run):
    runs = [make_run(LOW, "a"), make_run(HIGH, "b", interface="hconv"), make_run(HIGH, "c", interface="concat")]
    (runs[1].folder / "test_predict.txt").unlink()
    table = _compare(*runs)
    cells = _cells(table)
    assert cells["hconv"].comparison is None
    assert cells["hconv"].difference == pytest.approx(0.5)
    # Nothing is corrected for a comparison that was not made.
    assert cells["concat"].p_corrected == cells["concat"].comparison.p_value
    (note,) = table.notes
    assert note.startswith("ks: the difference of hconv is not tested. ")
    assert "test_predict.txt cannot be read" in note


def test_missing_predictions_of_the_baseline_are_noted_once(make_run):
    runs = [make_run(LOW, "a"), make_run(HIGH, "b", interface="hconv"), make_run(HIGH, "c", interface="concat")]
    (runs[0].folder / "test_truth.txt").unlink()
    table = _compare(*runs)
    assert [cell.comparison for cell in _cells(table).values()] == [None] * 3
    (note,) = table.notes
    assert note.startswith("ks: differences are not tested. ")


def test_other_utterances_are_noted(make_run):
    runs = [make_run(LOW, "a"), *(make_run("1" * 50, name, interface=name) for name in ("hconv", "concat"))]
    table = _compare(*runs)
    (note,) = table.notes
    assert note.startswith("ks: the difference of concat, hconv is not tested. The runs were not scored on the same")


def test_predictions_of_other_weights_are_noted(make_run):
    runs = [make_run(LOW, "a"), make_run(HIGH, "b", interface="hconv")]
    for kind in ("predict", "truth"):
        file = f"test_{kind}.txt"
        (runs[1].folder / file).write_text((runs[0].folder / file).read_text())
    (note,) = _compare(*runs).notes
    assert "they are of other weights" in note


def test_metrics_that_are_not_of_utterances_are_noted(make_run):
    runs = [make_run(LOW, "a", task="example"), make_run(HIGH, "b", task="example", interface="hconv")]
    table = _compare(*runs)
    assert _cells(table)["hconv"].comparison is None
    assert table.notes == ("example: differences are not tested, acc is not known utterance by utterance.",)


def test_the_second_metric_of_a_task_is_not_tested(make_result, tmp_path):
    metrics = {"test": {"slot_type_f1": 1.0, "slot_value_cer": 0.0, "step": 1}}
    runs = []
    for interface in ("weighted_sum", "hconv"):
        (tmp_path / interface).mkdir()
        for kind in ("hyp", "ref"):
            (tmp_path / interface / f"test-{kind}.ark").write_text("a B-x y E-x\nb B-x z E-x\n")
        result = make_result(1.0, task="sf", metric="slot_type_f1", metrics=metrics, interface=interface)
        runs.append(Run(tmp_path / interface, result))
    table = _compare(*runs)
    assert [column.metric for column in table.columns] == ["slot_type_f1", "slot_value_cer"]
    assert _cells(table, 0)["hconv"].comparison.p_value == 1
    assert _cells(table, 1)["hconv"].comparison is None
    assert table.notes == ()


def test_one_row_alone_needs_no_predictions(make_result, tmp_path):
    table = _compare(Run(tmp_path, make_result()))
    assert table.notes == ()


def test_holm():
    """By hand: 0.01 x 4, then 0.02 x 3, then 0.03 x 2 = 0.06, then 0.5 x 1."""
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # None smaller than one before it: 0.02 x 2 and 0.021 x 1.
    assert holm([0.021, 0.02]) == pytest.approx([0.04, 0.04])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_is_its_definition(p_values):
    """The largest of (n - rank + 1) p over all that are as small, and 1 at most."""
    ordered = sorted(p_values)
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        terms = [(len(ordered) - place) * other for place, other in enumerate(ordered) if other <= p]
        assert corrected == pytest.approx(min(1.0, max(terms)))
