import pytest

from s3prl_interfaces.errors import ConfigError, ResultError
from s3prl_interfaces.results import build_leaderboard


def _rows(table):
    return {row.label: row for row in table.rows}


def _only(board):
    (table,) = board.tables
    return table


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


def test_mean_spread_difference(three_seeds):
    table = _only(build_leaderboard(three_seeds))
    assert [row.label for row in table.rows] == ["weighted_sum", "hconv"]
    ((baseline,), (other,)) = (row.cells for row in table.rows)
    assert baseline.mean == pytest.approx(0.5, abs=1e-12)
    assert baseline.std == pytest.approx(0.1, abs=1e-12)
    assert baseline.difference is None
    assert other.mean == pytest.approx(0.6, abs=1e-12)
    assert other.std == pytest.approx(0.02, abs=1e-12)
    assert other.difference == pytest.approx(0.1, abs=1e-12)
    assert other.seeds == (0, 1, 2)
    assert (baseline.parameters, other.parameters) == ((12,), (5,))
    assert table.notes == ()


def test_one_seed_has_no_spread(make_result):
    (row,) = _only(build_leaderboard([make_result()])).rows
    assert row.cells[0].std is None
    # There is nothing that it could be better than.
    assert not row.cells[0].is_best


def test_higher_is_better(make_result):
    results = [make_result(0.9), make_result(0.8, interface="concat")]
    assert _flags(_only(build_leaderboard(results))) == {"weighted_sum": True, "concat": False}


def test_lower_is_better(make_result):
    kind = {"metric": "wer", "higher_is_better": False}
    results = [make_result(9.0, **kind), make_result(8.0, interface="concat", **kind)]
    table = _only(build_leaderboard(results))
    assert _flags(table) == {"weighted_sum": False, "concat": True}
    assert _rows(table)["concat"].cells[0].difference == -1.0


def test_ties_at_the_shown_precision_are_all_best(make_result):
    results = [
        make_result(0.97004),
        make_result(0.97001, interface="concat"),
        make_result(0.9699, interface="hconv"),
    ]
    flags = _flags(_only(build_leaderboard(results)))
    assert flags == {"weighted_sum": True, "concat": True, "hconv": False}


def test_fractions_that_are_no_percentage_tie_at_four_digits(make_result):
    kind = {"metric": "eer", "higher_is_better": False}
    results = [make_result(0.0512, **kind), make_result(0.0511, interface="concat", **kind)]
    assert _flags(_only(build_leaderboard(results))) == {"weighted_sum": False, "concat": True}


def test_missing_cell_never_counts(make_result):
    kind = {"task": "asr", "metric": "wer", "higher_is_better": False}
    results = [
        make_result(0.9),
        make_result(0.8, interface="concat"),
        make_result(5.0, interface="concat", **kind),
        make_result(6.0, interface="hconv", **kind),
    ]
    table = _only(build_leaderboard(results))
    assert [column.task for column in table.columns] == ["asr", "ic"]
    rows = _rows(table)
    assert rows["weighted_sum"].cells[0] is None
    assert rows["hconv"].cells[1] is None
    assert _flags(table, 0) == {"concat": True, "hconv": False}
    # The baseline has no result for this task.
    assert rows["concat"].cells[0].difference is None
    assert rows["concat"].cells[1].difference == pytest.approx(-0.1)


def test_splits_and_metrics_are_not_mixed(make_result):
    results = [
        make_result(0.9),
        make_result(0.95, split="dev", interface="concat"),
        make_result(0.7, metric="f1", interface="hconv"),
    ]
    columns = _only(build_leaderboard(results)).columns
    assert [(column.split, column.metric) for column in columns] == [
        ("dev", "acc"),
        ("test", "acc"),
        ("test", "f1"),
    ]


def test_one_table_for_each_upstream(make_result):
    results = [
        make_result(0.8, upstream="wavlm"),
        make_result(0.9, upstream="hubert"),
        make_result(0.7, upstream="hubert", interface="hconv"),
    ]
    board = build_leaderboard(results)
    assert [table.upstream for table in board.tables] == ["hubert", "wavlm"]
    assert [len(table.rows) for table in board.tables] == [2, 1]


def test_options_are_rows_of_their_own(make_result):
    results = [make_result(0.5 + k / 100, interface="hconv", interface_options={"kernel_size": k}) for k in (5, 3)]
    labels = [row.label for row in _only(build_leaderboard(results)).rows]
    assert labels == ["hconv(kernel_size=3)", "hconv(kernel_size=5)"]


def test_score_of_a_seed_is_the_mean_of_its_folds(make_result):
    scores = {(1, "fold1"): 0.5, (1, "fold2"): 0.7, (2, "fold1"): 0.6, (2, "fold2"): 0.8}
    # Folds differ in their config, which is no reason for a note.
    results = [
        make_result(value, seed=seed, fold=fold, config_sha256=fold[-1] * 64) for (seed, fold), value in scores.items()
    ]
    table = _only(build_leaderboard(results))
    (cell,) = table.rows[0].cells
    assert cell.mean == pytest.approx(0.65, abs=1e-12)
    # Of 0.6 and 0.7: 0.1 / sqrt(2).
    assert cell.std == pytest.approx(0.0707106781, abs=1e-9)
    assert cell.seeds == (1, 2)
    assert table.notes == ("ic: the mean of fold1, fold2.",)


def test_seed_without_all_folds_is_left_out(make_result):
    results = [make_result(0.5, fold=fold) for fold in ("fold1", "fold2", "fold3")]
    results.append(make_result(0.9, interface="hconv", fold="fold1"))
    table = _only(build_leaderboard(results))
    assert _rows(table)["hconv"].cells == (None,)
    assert table.notes == (
        "ic: hconv, seed 1, is left out, it lacks fold2, fold3.",
        "ic: the mean of fold1, fold2, fold3.",
    )


def test_different_configs_are_noted(make_result):
    results = [
        make_result(0.5),
        make_result(0.6, interface="concat"),
        make_result(0.7, interface="hconv", config_sha256="b" * 64),
        make_result(0.7, task="er", config_sha256="c" * 64),
    ]
    assert _only(build_leaderboard(results)).notes == (
        "ic: not all of these are comparable, their configs differ in more than interface and seed: "
        "aaaaaaaa (weighted_sum, concat); bbbbbbbb (hconv).",
    )


def test_different_configs_within_a_row_are_noted(make_result):
    results = [make_result(0.5, seed=1), make_result(0.6, seed=2, config_sha256="b" * 64)]
    (note,) = _only(build_leaderboard(results)).notes
    assert "aaaaaaaa (weighted_sum); bbbbbbbb (weighted_sum)" in note


def test_baseline_by_label_and_by_name(make_result):
    results = [
        make_result(0.5),
        make_result(0.7, interface="hconv", interface_options={"kernel_size": 3}),
        make_result(0.6, interface="single_layer", interface_options={"layer": 1}),
        make_result(0.8, interface="single_layer", interface_options={"layer": 2}),
    ]
    by_name = build_leaderboard(results, "hconv")
    assert by_name.baseline == "hconv(kernel_size=3)"
    assert by_name == build_leaderboard(results, "hconv(kernel_size=3)")
    table = _only(by_name)
    assert table.rows[0].label == "hconv(kernel_size=3)"
    assert _rows(table)["weighted_sum"].cells[0].difference == pytest.approx(-0.2)
    with pytest.raises(
        ConfigError,
        match=r"baseline 'single_layer' is not one row but several\. "
        r"Name one: single_layer\(layer=1\); single_layer\(layer=2\)\.",
    ):
        build_leaderboard(results, "single_layer")


def test_unknown_baseline_suggests_the_nearest(make_result):
    with pytest.raises(ConfigError, match=r"Unknown baseline 'weightedsum'\. Did you mean 'weighted_sum'\?"):
        build_leaderboard([make_result()], "weightedsum")


def test_without_the_default_baseline_there_are_no_differences(make_result):
    results = [make_result(0.5, interface="concat"), make_result(0.7, interface="hconv")]
    table = _only(build_leaderboard(results))
    assert [row.cells[0].difference for row in table.rows] == [None, None]
    assert table.notes == ("There is no weighted_sum here, so no differences are shown.",)


def test_nothing_and_duplicates_are_refused(make_result):
    with pytest.raises(ResultError, match="There are no results to compare"):
        build_leaderboard([])
    with pytest.raises(ResultError, match="Two of the results are of the same run"):
        build_leaderboard([make_result(0.5), make_result(0.6)])


def test_unlike_protocols_are_columns_of_their_own(make_result):
    """A PER without stress is not comparable with one with stress; what is alike is not said."""
    strip, keep = ({"stress": stress, "windows": "overlapping"} for stress in ("strip", "keep"))
    fields = {"task": "pr", "metric": "per", "higher_is_better": False}
    results = [
        make_result(0.2, protocol=strip, **fields),
        make_result(0.3, protocol=keep, **fields),
        make_result(0.25, protocol=keep, interface="hconv", **fields),
        make_result(0.9),
    ]
    table = _only(build_leaderboard(results))
    assert [column.heading for column in table.columns] == ["ic", 'pr stress="keep"', 'pr stress="strip"']
    assert [column.protocol for column in table.columns] == [{}, keep, strip]
    baseline, other = table.rows
    assert [cell.mean for cell in baseline.cells] == [0.9, 0.3, 0.2]
    assert other.cells[1].difference == pytest.approx(-0.05)
    assert other.cells[2] is None


def test_one_protocol_is_not_said(make_result):
    (column,) = _only(build_leaderboard([make_result(protocol={"dev_sampling": "balanced"})])).columns
    assert column.heading == "ic"


def test_an_option_that_older_results_lack_is_said(make_result):
    results = [make_result(), make_result(0.6, protocol={"dev_split": "session"})]
    table = _only(build_leaderboard(results))
    assert [column.heading for column in table.columns] == ['ic dev_split="session"', "ic"]
