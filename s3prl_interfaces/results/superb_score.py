"""SUPERB's overall score, superb_s (the SLT 2022 challenge and superbbenchmark.org, ``overall_metrics.js``).

For each metric ``points = 1000 * (value - fbank) / (best - fbank)``: log-mel filter banks have 0 points, the best
system of autumn 2021 has 1000. The mean over the metrics of a task, then over tasks. Less than 0 and more than 1000 is
possible.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from s3prl_interfaces.results.board import Cell, Column, Row

FEWEST_TASKS = 2
"""Over a single task there is nothing overall about a score."""


@dataclass(frozen=True)
class Anchors:
    """Where a metric has 0 and 1000 points, in percent."""

    fbank: float
    best: float

    def points(self, percent: float) -> float:
        """Return the points of a value; right for error rates too."""
        return 1000 * (percent - self.fbank) / (self.best - self.fbank)


@dataclass(frozen=True)
class SuperbTask:
    """How SUPERB measures a task."""

    split: str
    metrics: Mapping[str, Anchors]
    protocol: Mapping[str, Any]
    """SUPERB's values of the task's named options. Measured otherwise, a score is not comparable with SUPERB's."""
    folds: int = 0
    """Of a cross-validated task: how many."""


_TEXT = {"windows": "overlapping", "half_window_rule": True, "eos_in_targets": True}

SUPERB: Mapping[str, SuperbTask] = {
    "pr": SuperbTask("test", {"per": Anchors(82.01, 3.53)}, {**_TEXT, "stress": "keep"}),
    "asr": SuperbTask(
        "test-clean",
        {"wer": Anchors(23.18, 3.62)},
        {"batch_rule": "superb", "eos_in_targets": True, "decoder": "greedy"},
    ),
    "ks": SuperbTask(
        "test",
        {"acc": Anchors(41.3826674, 96.66)},
        {"accuracy": "pooled", "train_sampling": "balanced", "dev_sampling": "balanced", "dev_noise": "shared"},
    ),
    "ic": SuperbTask("test", {"acc": Anchors(9.649354219, 98.76)}, {"accuracy": "pooled"}),
    "sid": SuperbTask("test", {"acc": Anchors(20.058174, 90.3)}, {"accuracy": "pooled"}),
    "er": SuperbTask(
        "test", {"acc": Anchors(48.23672168, 67.62)}, {"accuracy": "pooled", "dev_split": "random"}, folds=5
    ),
    "sf": SuperbTask("test", {"slot_type_f1": Anchors(69.64, 89.81), "slot_value_cer": Anchors(52.94, 21.76)}, _TEXT),
    "sv": SuperbTask(
        "test",
        {"EER": Anchors(9.56, 5.11)},
        {
            "checkpoint_rule": "best_of_test",
            "hold_out_dev_speakers": False,
            "pooling_mask": "superb",
            "silence": "removed",
        },
    ),
}
"""The tasks that are here; of SUPERB's ten, QbE and SD are not."""


def second_metrics(task: str, metric: str) -> list[str]:
    """Return the metrics that SUPERB reports of a task beside ``metric``."""
    superb = SUPERB.get(task)
    return [name for name in superb.metrics if name != metric] if superb and metric in superb.metrics else []


def is_higher_better(task: str, metric: str) -> bool:
    """Tell the direction of one of SUPERB's metrics."""
    anchors = SUPERB[task].metrics[metric]
    return anchors.best > anchors.fbank


def is_measured_as_superb(column: Column) -> bool:
    """Tell whether a column can be compared with SUPERB's figures. Of tasks that are not SUPERB's: yes."""
    superb = SUPERB.get(column.task)
    if superb is None:
        return True
    return (
        column.split == superb.split
        and column.metric in superb.metrics
        and all(superb.protocol.get(name, value) == value for name, value in column.protocol.items())
    )


def add_superb_scores(columns: Sequence[Column], rows: Sequence[Row]) -> tuple[list[Row], tuple[str, ...], list[str]]:
    """Give each row its superb_s over the tasks that all rows have.

    Returns:
        The rows; the tasks that count; and what must be said. Rows without any of SUPERB's tasks have no score.
    """
    points = [_points(columns, row.cells) for row in rows]
    seen = sorted({task for of_row in points for task in of_row})
    tasks = [task for task in seen if all(task in of_row for of_row in points if of_row)]
    if len(tasks) < FEWEST_TASKS:
        missing = "There is no superb_s: the rows have fewer than two of SUPERB's tasks in common."
        return list(rows), (), [missing] if len(seen) >= FEWEST_TASKS else []
    notes = []
    otherwise = dict.fromkeys(column.heading for column in columns if not _counts(column))
    if otherwise:
        notes.append(f"superb_s leaves out what is not measured as SUPERB does: {', '.join(otherwise)}.")
    for task in seen:
        lacking = [row.label for row, of_row in zip(rows, points, strict=True) if of_row and task not in of_row]
        if lacking:
            notes.append(f"superb_s leaves out {task}: {', '.join(lacking)} has no score there.")
    scores = [fmean(of_row[task] for task in tasks) if of_row else None for of_row in points]
    shown = [None if score is None else round(score) for score in scores]
    known = [score for score in shown if score is not None]
    best = max(known) if len(known) > 1 else None
    scored = [
        replace(row, superb_s=score, is_best_overall=best is not None and round_score == best)
        for row, score, round_score in zip(rows, scores, shown, strict=True)
    ]
    return scored, tuple(tasks), notes


def _counts(column: Column) -> bool:
    superb = SUPERB.get(column.task)
    return superb is not None and is_measured_as_superb(column) and len(column.folds) == superb.folds


def _points(columns: Sequence[Column], cells: Sequence[Cell | None]) -> dict[str, float]:
    """Return the points of each task that a row has all of SUPERB's metrics of."""
    values: dict[str, dict[str, float]] = {}
    # Results of older versions tell less of their protocol: where there are both, the later columns hold the newer.
    for column, cell in sorted(zip(columns, cells, strict=True), key=lambda pair: len(pair[0].protocol)):
        if cell is not None and _counts(column):
            values.setdefault(column.task, {})[column.metric] = cell.mean * column.scale
    return {
        task: fmean(SUPERB[task].metrics[metric].points(percent) for metric, percent in of_task.items())
        for task, of_task in values.items()
        if len(of_task) == len(SUPERB[task].metrics)
    }
