"""Which runs count: SUPERB tunes the learning rate on dev, for each upstream, task and interface."""

import pytest

from s3prl_interfaces.results import Primary
from s3prl_interfaces.results.choice import rate_name


@pytest.fixture
def tuned(make_result):
    """Build a run of one learning rate, with its score on dev and on test."""

    def make(rate, dev, test, *, metric="acc", higher_is_better=True, chosen_on="dev", **fields):
        metrics = {chosen_on: {metric: dev, "step": 1}, "test": {metric: test, "step": 1}}
        if chosen_on == "test":
            metrics = {"test": {metric: test, "step": 1}}
        selection = Primary(
            name=metric, split=chosen_on, value=metrics[chosen_on][metric], higher_is_better=higher_is_better
        )
        return make_result(
            test,
            metric=metric,
            higher_is_better=higher_is_better,
            metrics=metrics,
            selection=selection,
            learning_rate=rate,
            **fields,
        )

    return make


def _cells(only):
    return {row.label: row.cells[0] for row in only.rows}


def test_the_rate_that_is_best_on_dev_counts(tuned, table):
    """Although another is better on test."""
    results = [
        tuned(1e-4, dev=0.5, test=0.9),
        tuned(1e-3, dev=0.6, test=0.7),
        tuned(1e-4, dev=0.8, test=0.75, interface="hconv"),
        tuned(1e-3, dev=0.7, test=0.95, interface="hconv"),
    ]
    only = table(results)
    cells = _cells(only)
    assert (cells["weighted_sum"].learning_rate, cells["weighted_sum"].mean) == (1e-3, 0.7)
    assert (cells["hconv"].learning_rate, cells["hconv"].mean) == (1e-4, 0.75)
    assert cells["hconv"].difference == pytest.approx(0.05)
    assert cells["hconv"].rates_tried == (1e-4, 1e-3)
    assert cells["hconv"].seeds == (1,)
    assert only.notes == (
        "ic: of the learning rates 1e-4, 1e-3 the best on dev counts: weighted_sum 1e-3, hconv 1e-4.",
    )


def test_an_error_rate_on_dev_is_better_when_lower(tuned, table):
    kind = {"metric": "wer", "higher_is_better": False}
    results = [tuned(1e-4, dev=9.0, test=5.0, **kind), tuned(1e-3, dev=8.0, test=6.0, **kind)]
    assert _cells(table(results))["weighted_sum"].mean == 6.0


def test_the_direction_on_dev_may_be_another_than_that_of_the_score(make_result, table):
    results = [
        make_result(
            test,
            learning_rate=rate,
            metrics={"dev": {"loss": loss, "step": 1}, "test": {"acc": test, "step": 1}},
            selection=Primary(name="loss", split="dev", value=loss, higher_is_better=False),
        )
        for rate, loss, test in ((1e-4, 1.5, 0.5), (1e-3, 2.0, 0.6))
    ]
    assert _cells(table(results))["weighted_sum"].mean == 0.5


def test_of_rates_that_are_equal_on_dev_the_lowest_counts(tuned, table):
    results = [tuned(1e-2, dev=0.5, test=0.9), tuned(1e-3, dev=0.5, test=0.8), tuned(1e-1, dev=0.5, test=0.95)]
    assert _cells(table(results))["weighted_sum"].learning_rate == 1e-3


def test_rates_are_compared_over_seeds_and_folds(tuned, table):
    """1e-3 is better on dev in three of four runs, and worse on the mean of a seed's folds, over seeds."""
    dev = {1e-4: [(0.5, 0.5), (0.5, 0.5)], 1e-3: [(0.51, 0.51), (0.51, 0.1)]}
    results = [
        tuned(rate, dev=value, test=0.5, seed=seed, fold=f"fold{fold}")
        for rate, seeds in dev.items()
        for seed, folds in enumerate(seeds)
        for fold, value in enumerate(folds, start=1)
    ]
    cell = _cells(table(results))["weighted_sum"]
    assert cell.learning_rate == 1e-4
    assert cell.seeds == (0, 1)
    assert [[run.result.fold for run in unit] for unit in cell.units] == [["fold1", "fold2"]] * 2


def test_only_seeds_that_ran_with_every_rate_decide(tuned, table):
    """One tunes on one seed and runs others with the best: those must not count against it."""
    results = [
        tuned(1e-4, dev=0.6, test=0.6, seed=1),
        tuned(1e-4, dev=0.3, test=0.4, seed=2),
        tuned(1e-3, dev=0.5, test=0.9, seed=1),
    ]
    cell = _cells(table(results))["weighted_sum"]
    assert (cell.learning_rate, cell.seeds) == (1e-4, (1, 2))
    assert cell.mean == pytest.approx(0.5)
    # No seed ran with both: all of them decide.
    results[2] = tuned(1e-3, dev=0.5, test=0.9, seed=3)
    assert _cells(table(results))["weighted_sum"].learning_rate == 1e-3


def test_a_rate_that_lacks_a_fold_is_not_chosen(tuned, table):
    results = [
        tuned(1e-4, dev=0.5, test=0.5, fold="fold1"),
        tuned(1e-4, dev=0.5, test=0.5, fold="fold2"),
        tuned(1e-3, dev=0.9, test=0.9, fold="fold1"),
    ]
    only = table(results)
    assert _cells(only)["weighted_sum"].learning_rate == 1e-4
    assert only.notes[0] == "ic: weighted_sum with 1e-3, seed 1 is left out, it lacks fold2."


def test_rows_that_tried_other_rates_are_noted(tuned, table):
    results = [
        tuned(1e-4, dev=0.5, test=0.5),
        tuned(1e-4, dev=0.5, test=0.5, interface="hconv"),
        tuned(1e-3, dev=0.6, test=0.6, interface="hconv"),
    ]
    assert table(results).notes == (
        "ic: of the learning rates the best on dev counts: hconv 1e-3.",
        "ic: the rows did not try the same learning rates, so this is not like with like: "
        "weighted_sum 1e-4; hconv 1e-4, 1e-3.",
    )
    del results[1]
    (note,) = table(results).notes
    assert note.endswith("weighted_sum 1e-4; hconv 1e-3.")


def test_one_rate_for_all_is_not_noted(tuned, table):
    results = [tuned(1e-4, dev=0.5, test=0.5), tuned(1e-4, dev=0.5, test=0.5, interface="hconv")]
    assert table(results).notes == ()


def test_a_rate_that_was_chosen_on_test_is_said(tuned, table):
    results = [tuned(rate, dev=None, test=test, chosen_on="test") for rate, test in ((1e-4, 0.5), (1e-3, 0.6))]
    only = table(results)
    assert _cells(only)["weighted_sum"].mean == 0.6
    assert only.notes == (
        "ic: of the learning rates 1e-4, 1e-3 the best on test counts: weighted_sum 1e-3.",
        "ic: the learning rate was chosen on test, which is also what is scored.",
    )


@pytest.mark.parametrize("other", [{}, {"chosen_on": "dev-other"}], ids=["nothing", "another split"])
def test_without_a_score_to_choose_by_no_rate_counts(tuned, make_result, table, other):
    """Choosing on test would be choosing what is reported."""
    second = tuned(1e-3, dev=0.9, test=0.9, **other) if other else make_result(0.9, learning_rate=1e-3)
    only = table([tuned(1e-4, dev=0.5, test=0.5), second, tuned(1e-4, dev=0.5, test=0.5, interface="hconv")])
    cells = _cells(only)
    assert cells["weighted_sum"] is None
    assert cells["hconv"].difference is None
    assert only.notes == (
        "ic: weighted_sum is left out: it was run with several learning rates (1e-4, 1e-3) and has no score on dev to "
        "choose by. Give the folders of one learning rate only.",
    )


def test_results_without_a_rate_give_way_to_those_with_one(tuned, make_result, table):
    only = table([make_result(0.9), tuned(1e-4, dev=0.5, test=0.5)])
    assert _cells(only)["weighted_sum"].mean == 0.5
    assert only.notes == (
        "ic: weighted_sum is left out where it does not say its learning rate (results of an older version).",
    )


def test_results_of_an_older_version_alone_count(make_result, tuned, table):
    cell = _cells(table([make_result(0.5)]))["weighted_sum"]
    assert (cell.mean, cell.learning_rate, cell.rates_tried) == (0.5, None, (None,))
    (note,) = table([make_result(0.5), tuned(1e-4, dev=0.5, test=0.5, interface="hconv")]).notes
    assert note.endswith("weighted_sum not recorded; hconv 1e-4.")


@pytest.mark.parametrize(
    ("rate", "name"),
    [(1e-4, "1e-4"), (0.0025, "2.5e-3"), (1.0, "1e0"), (0.1, "1e-1"), (0, "0"), (None, "not recorded")],
)
def test_rate_names(rate, name):
    assert rate_name(rate) == name
