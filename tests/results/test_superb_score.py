"""SUPERB's overall score, against its definition written out."""

import pytest

from downstream_tasks.registry import TASKS, load_expert
from s3prl_interfaces.results.superb_score import SUPERB, is_higher_better, is_measured_as_superb, second_metrics

WER = {"task": "asr", "metric": "wer", "higher_is_better": False, "split": "test-clean"}
PER = {"task": "pr", "metric": "per", "higher_is_better": False}
SF = {"task": "sf", "metric": "slot_type_f1"}


def _slots(f1, cer):
    return {"test": {"slot_type_f1": f1, "slot_value_cer": cer, "step": 1}}


def _scores(only):
    return {row.label: row.superb_s for row in only.rows}


def test_zero_and_a_thousand(make_result, table):
    """FBANK has 0 points and the best of 2021 has 1000, in every task: superbbenchmark.org's own figures."""
    figures = {
        "weighted_sum": {"pr": 82.01, "asr": 23.18, "ks": 41.3826674, "ic": 9.649354219, "sid": 20.058174, "sv": 9.56},
        "hconv": {"pr": 3.53, "asr": 3.62, "ks": 96.66, "ic": 98.76, "sid": 90.3, "sv": 5.11},
    }
    kinds = {"pr": ("per", False), "asr": ("wer", False), "sv": ("EER", False)}
    results = []
    for interface, of_task in figures.items():
        for task, percent in of_task.items():
            metric, higher_is_better = kinds.get(task, ("acc", True))
            value = percent if metric == "wer" else percent / 100
            split = "test-clean" if task == "asr" else "test"
            fields = {"metric": metric, "higher_is_better": higher_is_better, "split": split}
            results.append(make_result(value, task=task, interface=interface, **fields))
        er, f1, cer = (0.6762, 0.8981, 0.2176) if interface == "hconv" else (0.4823672168, 0.6964, 0.5294)
        results += [make_result(er, task="er", interface=interface, fold=f"fold{fold}") for fold in range(1, 6)]
        results.append(make_result(f1, metrics=_slots(f1, cer), interface=interface, **SF))
    only = table(results)
    assert only.superb_tasks == ("asr", "er", "ic", "ks", "pr", "sf", "sid", "sv")
    assert _scores(only) == pytest.approx({"weighted_sum": 0, "hconv": 1000}, abs=1e-4)
    assert [row.is_best_overall for row in only.rows] == [False, True]
    assert only.notes == ("er: the mean of fold1, fold2, fold3, fold4, fold5.",)


def test_metrics_are_averaged_within_their_task_first(make_result, table):
    """Slot filling has two metrics and counts once."""
    results = [make_result(0.8, metrics=_slots(0.8, 0.4), **SF), make_result(0.05, **PER)]
    f1, cer = 1000 * (80 - 69.64) / (89.81 - 69.64), 1000 * (40 - 52.94) / (21.76 - 52.94)
    per = 1000 * (5 - 82.01) / (3.53 - 82.01)
    ((_, score),) = _scores(table(results)).items()
    assert score == pytest.approx(((f1 + cer) / 2 + per) / 2)


def test_a_task_without_both_of_its_metrics_does_not_count(make_result, table):
    results = [make_result(0.8, **SF), make_result(0.05, **PER), make_result(7.0, **WER)]
    assert table(results).superb_tasks == ("asr", "pr")


def test_only_tasks_that_all_rows_have_count(make_result, table):
    results = [
        make_result(0.05, **PER),
        make_result(7.0, **WER),
        make_result(0.9),
        make_result(0.04, interface="hconv", **PER),
        make_result(6.0, interface="hconv", **WER),
        make_result(0.5, task="example", interface="concat"),
    ]
    only = table(results)
    assert only.superb_tasks == ("asr", "pr")
    expected = (1000 * (4 - 82.01) / (3.53 - 82.01) + 1000 * (6 - 23.18) / (3.62 - 23.18)) / 2
    assert _scores(only)["hconv"] == pytest.approx(expected)
    # Nothing of SUPERB's is not a zero.
    assert _scores(only)["concat"] is None
    assert only.notes == (
        "superb_s leaves out what is not measured as SUPERB does: example.",
        "superb_s leaves out ic: hconv has no score there.",
    )


def test_rows_with_nothing_in_common_have_no_score(make_result, table):
    results = [make_result(0.05, **PER), make_result(7.0, interface="hconv", **WER)]
    only = table(results)
    assert set(_scores(only).values()) == {None}
    assert only.superb_tasks == ()
    assert only.notes == ("There is no superb_s: the rows have fewer than two of SUPERB's tasks in common.",)


def test_one_task_is_nothing_overall(make_result, table):
    only = table([make_result(0.9), make_result(0.95, interface="hconv")])
    assert (only.superb_tasks, only.notes) == ((), ())


@pytest.mark.parametrize(
    "fields",
    [
        {**WER, "protocol": {"decoder": "kenlm"}},
        {**WER, "split": "test-other"},
        {"task": "sid", "metric": "balanced_acc", "protocol": {"accuracy": "balanced"}},
        {**PER, "task": "pr", "protocol": {"stress": "strip"}},
        {"task": "er", "fold": "fold1"},
        {"task": "example"},
    ],
    ids=str,
)
def test_what_is_not_measured_as_superb_does_not_count(make_result, table, fields):
    results = [make_result(0.9), make_result(0.9, task="ks"), make_result(0.9, **fields)]
    only = table(results)
    assert only.superb_tasks == ("ic", "ks")
    heading = only.columns[[column.task for column in only.columns].index(fields["task"])].heading
    assert only.notes[-1] == f"superb_s leaves out what is not measured as SUPERB does: {heading}."


def test_with_superbs_own_options_it_counts(make_result, table):
    results = [make_result(0.9), make_result(7.0, protocol=dict(SUPERB["asr"].protocol), **WER)]
    assert table(results).superb_tasks == ("asr", "ic")


def test_a_newer_result_of_the_same_task_counts(make_result, table):
    """Results of older versions tell less of their protocol, and stand in a column of their own."""
    results = [
        make_result(0.5, task="ks"),
        make_result(0.9, task="ks", protocol={"accuracy": "pooled"}),
        make_result(0.98),
    ]
    expected = (1000 * (90 - 41.3826674) / (96.66 - 41.3826674) + 1000 * (98 - 9.649354219) / (98.76 - 9.649354219)) / 2
    assert _scores(table(results))["weighted_sum"] == pytest.approx(expected)


def test_ties_of_the_rounded_score_are_all_best(make_result, table):
    results = [
        make_result(value, task=task, interface=interface)
        for task in ("ic", "ks")
        for interface, value in (("weighted_sum", 0.900001), ("hconv", 0.9), ("concat", 0.8))
    ]
    assert {row.label: row.is_best_overall for row in table(results).rows} == {
        "weighted_sum": True,
        "hconv": True,
        "concat": False,
    }


def test_alone_nothing_is_best(make_result, table):
    (row,) = table([make_result(0.9), make_result(0.9, task="ks")]).rows
    assert row.superb_s is not None
    assert not row.is_best_overall


def test_the_tasks_are_measured_as_superb_by_default():
    """The score, its split, its direction and the folds are those of the tasks that are here."""
    assert set(SUPERB) == {task.name for task in TASKS}
    for name, superb in SUPERB.items():
        expert = load_expert(name)
        assert expert.score.metric in superb.metrics
        assert expert.score.split == superb.split
        assert expert.score.higher_is_better == is_higher_better(name, expert.score.metric)
        assert len(getattr(expert, "folds", ())) == superb.folds


def test_second_metrics():
    assert second_metrics("sf", "slot_type_f1") == ["slot_value_cer"]
    assert second_metrics("sf", "wer") == second_metrics("ic", "acc") == second_metrics("example", "acc") == []
    assert not is_higher_better("sf", "slot_value_cer")


def test_tasks_that_are_not_superbs_are_measured_their_own_way(make_result, table):
    (column,) = table([make_result(task="example", protocol={"a": 1})]).columns
    assert is_measured_as_superb(column)


TEXT = {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": True}
RECORDED = {
    "pr": {**TEXT, "stress": "keep"},
    "asr": {"batch_rule": "superb", "eos_in_targets": True, "decoder": "greedy"},
    "ks": {"accuracy": "pooled", "train_sampling": "balanced", "dev_sampling": "balanced", "dev_noise": "shared"},
    "ic": {"accuracy": "pooled"},
    "sid": {"accuracy": "pooled"},
    "er": {"accuracy": "pooled", "dev_split": "random"},
    "sf": TEXT,
    "sv": {
        "checkpoint_rule": "best_of_test",
        "hold_out_dev_speakers": False,
        "pooling_mask": "superb",
        "silence": "removed",
    },
}
"""What the tasks record with SUPERB's configs, as the tests of each task have it."""


def test_superbs_options_are_those_that_the_tasks_record():
    assert {name: dict(superb.protocol) for name, superb in SUPERB.items()} == RECORDED
