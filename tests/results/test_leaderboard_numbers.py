from pathlib import Path

import pytest

from s3prl_interfaces.errors import ConfigError, ResultError
from s3prl_interfaces.results import Found, Problem, Run, build_leaderboard


def _rows(table):
    return {row.label: row for row in table.rows}


def _flags(table, index=0):
    return {row.label: row.cells[index].is_best for row in table.rows if row.cells[index]}


@pytest.fixture
def three_seeds(make_result):
    """Means 0.5 and 0.6, sample standard deviations 0.1 and 0.02."""
    scores = {"weighted_sum": (0.4, 0.5, 0.6), "hconv": (0.58, 0.6, 0.62)}
    return [
        make_result(value, interface=name, seed=seed, trained=len(name))
        for name, values in scores.items()
        for seed, value in enumerate(values)
    ]


def test_mean_spread_difference(three_seeds, table):
    only = table(three_seeds)
    assert [row.label for row in only.rows] == ["weighted_sum", "hconv"]
    ((baseline,), (other,)) = (row.cells for row in only.rows)
    assert baseline.mean == pytest.approx(0.5, abs=1e-12)
    assert baseline.std == pytest.approx(0.1, abs=1e-12)
    assert baseline.difference is None
    assert other.mean == pytest.approx(0.6, abs=1e-12)
    assert other.std == pytest.approx(0.02, abs=1e-12)
    assert other.difference == pytest.approx(0.1, abs=1e-12)
    assert other.seeds == (0, 1, 2)
    assert (baseline.parameters, other.parameters) == ((12,), (5,))
    assert only.notes == ()


def test_one_seed_has_no_spread(make_result, table):
    (row,) = table([make_result()]).rows
    assert row.cells[0].std is None
    # There is nothing that it could be better than.
    assert not row.cells[0].is_best


def test_higher_is_better(make_result, table):
    results = [make_result(0.9), make_result(0.8, interface="concat")]
    assert _flags(table(results)) == {"weighted_sum": True, "concat": False}


def test_lower_is_better(make_result, table):
    kind = {"metric": "wer", "higher_is_better": False}
    results = [make_result(9.0, **kind), make_result(8.0, interface="concat", **kind)]
    only = table(results)
    assert _flags(only) == {"weighted_sum": False, "concat": True}
    assert _rows(only)["concat"].cells[0].difference == -1.0


def test_ties_at_the_shown_precision_are_all_best(make_result, table):
    results = [
        make_result(0.97004),
        make_result(0.97001, interface="concat"),
        make_result(0.9699, interface="hconv"),
    ]
    flags = _flags(table(results))
    assert flags == {"weighted_sum": True, "concat": True, "hconv": False}


def test_fractions_that_are_no_percentage_tie_at_four_digits(make_result, table):
    kind = {"metric": "eer", "higher_is_better": False}
    results = [make_result(0.0512, **kind), make_result(0.0511, interface="concat", **kind)]
    assert _flags(table(results)) == {"weighted_sum": False, "concat": True}


def test_missing_cell_never_counts(make_result, table):
    kind = {"task": "asr", "metric": "wer", "higher_is_better": False}
    results = [
        make_result(0.9),
        make_result(0.8, interface="concat"),
        make_result(5.0, interface="concat", **kind),
        make_result(6.0, interface="hconv", **kind),
    ]
    only = table(results)
    assert [column.task for column in only.columns] == ["asr", "ic"]
    rows = _rows(only)
    assert rows["weighted_sum"].cells[0] is None
    assert rows["hconv"].cells[1] is None
    assert _flags(only, 0) == {"concat": True, "hconv": False}
    # The baseline has no result for this task.
    assert rows["concat"].cells[0].difference is None
    assert rows["concat"].cells[1].difference == pytest.approx(-0.1)


def test_splits_and_metrics_are_not_mixed(make_result, table):
    results = [
        make_result(0.9),
        make_result(0.95, split="dev", interface="concat"),
        make_result(0.7, metric="f1", interface="hconv"),
    ]
    columns = table(results).columns
    assert [(column.split, column.metric) for column in columns] == [
        ("dev", "acc"),
        ("test", "acc"),
        ("test", "f1"),
    ]


def test_one_table_for_each_upstream(make_result, board):
    results = [
        make_result(0.8, upstream="wavlm"),
        make_result(0.9, upstream="hubert"),
        make_result(0.7, upstream="hubert", interface="hconv"),
    ]
    tables = board(results).tables
    assert [table.upstream for table in tables] == ["hubert", "wavlm"]
    assert [len(table.rows) for table in tables] == [2, 1]


def test_options_are_rows_of_their_own(make_result, table):
    results = [make_result(0.5 + k / 100, interface="hconv", interface_options={"kernel_size": k}) for k in (5, 3)]
    labels = [row.label for row in table(results).rows]
    assert labels == ["hconv(kernel_size=3)", "hconv(kernel_size=5)"]


def test_score_of_a_seed_is_the_mean_of_its_folds(make_result, table):
    scores = {(1, "fold1"): 0.5, (1, "fold2"): 0.7, (2, "fold1"): 0.6, (2, "fold2"): 0.8}
    # Folds differ in their config, which is no reason for a note.
    results = [
        make_result(value, seed=seed, fold=fold, config_sha256=fold[-1] * 64) for (seed, fold), value in scores.items()
    ]
    only = table(results)
    (cell,) = only.rows[0].cells
    assert cell.mean == pytest.approx(0.65, abs=1e-12)
    # Of 0.6 and 0.7: 0.1 / sqrt(2).
    assert cell.std == pytest.approx(0.0707106781, abs=1e-9)
    assert cell.seeds == (1, 2)
    assert only.notes == ("ic: the mean of fold1, fold2.",)


def test_seed_without_all_folds_is_left_out(make_result, table):
    results = [make_result(0.5, fold=fold) for fold in ("fold1", "fold2", "fold3")]
    results.append(make_result(0.9, interface="hconv", fold="fold1"))
    only = table(results)
    assert _rows(only)["hconv"].cells == (None,)
    assert only.notes == (
        "ic: hconv with seed 1 is left out, it lacks fold2, fold3.",
        "ic: the mean of fold1, fold2, fold3.",
    )


def test_different_configs_are_noted(make_result, table):
    results = [
        make_result(0.5),
        make_result(0.6, interface="concat"),
        make_result(0.7, interface="hconv", config_sha256="b" * 64),
        make_result(0.7, task="er", config_sha256="c" * 64),
    ]
    assert table(results).notes == (
        "ic: not all of these are comparable, their configs differ in more than interface, seed and learning rate: "
        "aaaaaaaa (weighted_sum, concat); bbbbbbbb (hconv).",
    )


def test_different_configs_within_a_row_are_noted(make_result, table):
    results = [make_result(0.5, seed=1), make_result(0.6, seed=2, config_sha256="b" * 64)]
    (note,) = table(results).notes
    assert "aaaaaaaa (weighted_sum); bbbbbbbb (weighted_sum)" in note


def test_baseline_by_label_and_by_name(make_result, board):
    results = [
        make_result(0.5),
        make_result(0.7, interface="hconv", interface_options={"kernel_size": 3}),
        make_result(0.6, interface="single_layer", interface_options={"layer": 1}),
        make_result(0.8, interface="single_layer", interface_options={"layer": 2}),
    ]
    by_name = board(results, "hconv")
    assert by_name.baseline == "hconv(kernel_size=3)"
    assert by_name == board(results, "hconv(kernel_size=3)")
    only = by_name.tables[0]
    assert only.rows[0].label == "hconv(kernel_size=3)"
    assert _rows(only)["weighted_sum"].cells[0].difference == pytest.approx(-0.2)
    with pytest.raises(
        ConfigError,
        match=r"baseline 'single_layer' is not one row but several\. "
        r"Name one: single_layer\(layer=1\); single_layer\(layer=2\)\.",
    ):
        board(results, "single_layer")


def test_unknown_baseline_suggests_the_nearest(make_result, board):
    with pytest.raises(ConfigError, match=r"Unknown baseline 'weightedsum'\. Did you mean 'weighted_sum'\?"):
        board([make_result()], "weightedsum")


def test_without_the_default_baseline_there_are_no_differences(make_result, table):
    results = [make_result(0.5, interface="concat"), make_result(0.7, interface="hconv")]
    only = table(results)
    assert [row.cells[0].difference for row in only.rows] == [None, None]
    assert only.notes == ("There is no weighted_sum here, so no differences are shown.",)


def test_nothing_and_duplicates_are_refused(make_result, board):
    with pytest.raises(ResultError, match="There are no results to compare"):
        board([])
    with pytest.raises(ResultError, match="Two of the results are of the same run"):
        board([make_result(0.5), make_result(0.6)])


def test_unlike_protocols_are_columns_of_their_own(make_result, table):
    """A PER without stress is not comparable with one with stress; what is alike is not said."""
    strip, keep = ({"stress": stress, "windows": "overlapping"} for stress in ("strip", "keep"))
    fields = {"task": "pr", "metric": "per", "higher_is_better": False}
    results = [
        make_result(0.2, protocol=strip, **fields),
        make_result(0.3, protocol=keep, **fields),
        make_result(0.25, protocol=keep, interface="hconv", **fields),
        make_result(0.9),
    ]
    only = table(results)
    assert [column.heading for column in only.columns] == ["ic", 'pr stress="keep"', 'pr stress="strip"']
    assert [column.protocol for column in only.columns] == [{}, keep, strip]
    baseline, other = only.rows
    assert [cell.mean for cell in baseline.cells] == [0.9, 0.3, 0.2]
    assert other.cells[1].difference == pytest.approx(-0.05)
    assert other.cells[2] is None


def test_one_protocol_is_not_said(make_result, table):
    (column,) = table([make_result(protocol={"dev_sampling": "balanced"})]).columns
    assert column.heading == "ic"


def test_an_option_that_older_results_lack_is_said(make_result, table):
    results = [make_result(), make_result(0.6, protocol={"dev_split": "session"})]
    only = table(results)
    assert [column.heading for column in only.columns] == ['ic dev_split="session"', "ic"]


def test_the_same_seed_on_other_data_is_another_seed(make_result, table):
    """Not a second fold of it: the spread is over all four."""
    scores = {(1, 1): 0.4, (1, 2): 0.5, (2, 1): 0.5, (2, 2): 0.6}
    results = [make_result(value, seed=seed, data_seed=data) for (seed, data), value in scores.items()]
    ((cell,),) = (row.cells for row in table(results).rows)
    assert cell.mean == pytest.approx(0.5, abs=1e-12)
    assert cell.std == pytest.approx((0.02 / 3) ** 0.5, abs=1e-12)
    assert cell.seeds == (1, 1, 2, 2)
    assert cell.data_seeds == (1, 2, 1, 2)


def test_different_seeds_are_noted(make_result, table):
    results = [
        make_result(0.5, seed=1, data_seed=1),
        make_result(0.6, seed=2, data_seed=7),
        make_result(0.7, seed=1, data_seed=1, interface="hconv"),
        make_result(0.7, seed=2, data_seed=2, interface="hconv"),
    ]
    note = "ic: not all rows have the same seeds: weighted_sum seed 1, seed 2 (data 7); hconv seed 1, seed 2."
    assert table(results).notes == (note,)
    # The data seed that was not recorded may be the same.
    results[0] = make_result(0.5, seed=1)
    assert table(results).notes == ()
    results[0] = make_result(0.5, seed=3)
    (note,) = table(results).notes
    assert note == "ic: not all rows have the same seeds: weighted_sum seed 2, seed 3; hconv seed 1, seed 2."


SLOTS = {"slot_type_f1": 0.8, "slot_value_cer": 0.3, "step": 10}


def test_slot_filling_shows_both_of_its_metrics(make_result, table):
    """SUPERB reports F1 and CER; the second comes from the metrics, and its direction from SUPERB."""
    fields = {"task": "sf", "metric": "slot_type_f1"}
    results = [
        make_result(0.8, metrics={"test": SLOTS}, **fields),
        make_result(
            0.7, metrics={"test": {**SLOTS, "slot_type_f1": 0.7, "slot_value_cer": 0.2}}, **fields, interface="hconv"
        ),
        make_result(0.9, **fields, interface="concat"),
    ]
    only = table(results)
    shown = [(column.metric, column.scale, column.higher_is_better, column.is_primary) for column in only.columns]
    assert shown == [("slot_type_f1", 100, True, True), ("slot_value_cer", 100, False, False)]
    assert _flags(only, 0) == {"weighted_sum": False, "concat": True, "hconv": False}
    assert _flags(only, 1) == {"weighted_sum": False, "hconv": True}
    assert _rows(only)["hconv"].cells[1].difference == pytest.approx(-0.1)
    assert _rows(only)["concat"].cells[1] is None


def test_a_metric_beside_another_score_is_not_shown(make_result, table):
    metrics = {"test": {**SLOTS, "wer": 0.5}}
    (column,) = table([make_result(0.5, task="sf", metric="wer", metrics=metrics)]).columns
    assert column.metric == "wer"


def test_macs_are_those_of_the_runs_that_count(make_result, table):
    results = [
        make_result(seed=1, macs_per_second=500),
        make_result(seed=2, macs_per_second=600),
        make_result(task="er"),
    ]
    (row,) = table(results).rows
    assert row.macs_per_second == (500, 600)
    assert [cell.macs_per_second for cell in row.cells] == [(), (500, 600)]


def test_different_configs_of_one_fold_are_noted(make_result, table):
    configs = {("weighted_sum", "fold1"): "a", ("hconv", "fold1"): "a", ("weighted_sum", "fold2"): "b"}
    results = [
        make_result(interface=interface, fold=fold, config_sha256=configs.get((interface, fold), "c") * 64)
        for interface in ("weighted_sum", "hconv")
        for fold in ("fold1", "fold2")
    ]
    (_, note) = table(results).notes
    assert note.startswith("ic: not all of these are comparable")
    assert note.endswith("aaaaaaaa (weighted_sum, hconv); bbbbbbbb (weighted_sum); cccccccc (hconv).")


@pytest.mark.parametrize("metric", ["acc", "balanced_acc", "per", "EER", "slot_type_f1"])
def test_fractions_are_shown_as_percentages(make_result, table, metric):
    (column,) = table([make_result(0.5, metric=metric)]).columns
    assert (column.scale, column.decimals) == (100, 2)


def test_problems_are_handed_on(make_result):
    problem = Problem(Path("runs/half"), "not finished")
    found = Found((Run(Path("runs/whole"), make_result()),), (problem,))
    assert build_leaderboard(found).problems == (problem,)
