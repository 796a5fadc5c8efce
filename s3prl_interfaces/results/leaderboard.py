"""From the results of many runs to one table for each upstream: interface x task."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

from s3prl_interfaces.errors import ConfigError, ResultError, unknown_name
from s3prl_interfaces.results.record import RunResult

DEFAULT_BASELINE = "weighted_sum"

SHOWN_AS_PERCENT = frozenset({"acc", "per", "EER", "slot_type_f1"})
"""Metrics that tasks report as a fraction and that people read as a percentage."""


@dataclass(frozen=True)
class Column:
    """One task, measured by one metric on one split."""

    task: str
    split: str
    metric: str
    higher_is_better: bool
    protocol: Mapping[str, Any]
    """The task's named options that were used. Unlike ones measure unlike things: they are columns of their own."""
    heading: str
    """The task, and of its protocol what differs from another column of the table."""
    decimals: int
    """Digits after the point when shown; values that are equal when shown are ties."""

    @property
    def scale(self) -> int:
        """What a value is multiplied by when shown to a person."""
        return 100 if self.metric in SHOWN_AS_PERCENT else 1

    def rounded(self, value: float) -> float:
        """Return ``value`` as a person will see it."""
        return round(value * self.scale, self.decimals)


@dataclass(frozen=True)
class Cell:
    """The runs of one interface for one column, over their seeds. Values are in the unit of the metric."""

    mean: float
    std: float | None
    """Sample standard deviation over seeds, ``None`` for a single seed."""
    seeds: tuple[int, ...]
    difference: float | None
    """``mean`` minus the mean of the baseline; ``None`` for the baseline itself and where it is missing."""
    is_best: bool
    """Nothing in the column is better, at the precision shown. Never true where there is nothing to beat."""
    parameters: tuple[int, ...]
    """Trained parameters of the interface; more than one number only if the runs disagree."""
    configs: tuple[str, ...]
    """The ``config_sha256`` of the runs."""


@dataclass(frozen=True)
class Row:
    """One interface with one set of options."""

    label: str
    interface: str
    options: Mapping[str, Any]
    cells: tuple[Cell | None, ...]
    """One for each column of the table, ``None`` where there is no result."""

    @property
    def parameters(self) -> tuple[int, ...]:
        """Trained parameters of the interface; more than one number only if the runs disagree."""
        return tuple(sorted({count for cell in self.cells if cell for count in cell.parameters}))


@dataclass(frozen=True)
class Table:
    """All interfaces and tasks of one upstream."""

    upstream: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """The baseline first, then by label."""
    notes: tuple[str, ...]
    """What a reader must know before comparing rows."""


@dataclass(frozen=True)
class Leaderboard:
    """One table for each upstream."""

    baseline: str
    tables: tuple[Table, ...]


def build_leaderboard(results: Iterable[RunResult], baseline: str = DEFAULT_BASELINE) -> Leaderboard:
    """Average the results over seeds and compare them with a baseline.

    Args:
        results: The results, one of each run, as :func:`~s3prl_interfaces.results.load_results` gives them.
        baseline: The row that differences are taken to: a label such as ``hconv(kernel_size=3)``, or the name
            of an interface if only one row has it. If the default has no result, there are no differences.

    Raises:
        ResultError: There are no results, or two of the same run.
        ConfigError: ``baseline`` is not one row of the leaderboard.
    """
    results = list(results)
    if not results:
        raise ResultError("There are no results to compare.")
    if len({result.identity for result in results}) < len(results):
        raise ResultError("Two of the results are of the same run: `load_results` keeps the newer one.")
    baseline = _find_baseline(baseline, results)
    by_upstream = _group(results, lambda result: result.upstream)
    tables = tuple(_build_table(name, by_upstream[name], baseline) for name in sorted(by_upstream))
    return Leaderboard(baseline, tables)


def _find_baseline(baseline: str, results: Sequence[RunResult]) -> str:
    labels = {result.label for result in results}
    if baseline in labels:
        return baseline
    matching = sorted({result.label for result in results if result.interface == baseline})
    if len(matching) > 1:
        raise ConfigError(f"The baseline {baseline!r} is not one row but several. Name one: {'; '.join(matching)}.")
    if matching:
        return matching[0]
    if baseline == DEFAULT_BASELINE:
        return baseline
    raise ConfigError(unknown_name("baseline", baseline, labels))


def _build_table(upstream: str, results: Sequence[RunResult], baseline: str) -> Table:
    by_column = _group(results, _column_key)
    by_label = _group(results, lambda result: result.label)
    labels = sorted(by_label, key=lambda label: (label != baseline, label))
    notes = [] if baseline in by_label else [f"There is no {baseline} here, so no differences are shown."]

    columns = []
    cells: dict[str, list[Cell | None]] = {label: [] for label in labels}
    for key in sorted(by_column):
        runs = by_column[key]
        scores = {label: [run for run in runs if run.label == label] for label in labels}
        complete, incomplete_notes = _drop_incomplete_seeds(scores)
        column, column_cells = _build_column(key, complete, baseline)
        columns.append(column)
        notes += incomplete_notes + _fold_notes(complete) + _config_notes(scores)
        for label in labels:
            cells[label].append(column_cells.get(label))
    columns = _with_headings(columns)

    rows = tuple(
        Row(label, by_label[label][0].interface, by_label[label][0].interface_options, tuple(cells[label]))
        for label in labels
    )
    return Table(upstream, tuple(columns), rows, tuple(notes))


def _column_key(result: RunResult) -> tuple[str, str, str, bool, str]:
    primary = result.primary
    protocol = json.dumps(result.protocol, sort_keys=True)
    return (result.task, primary.split, primary.name, primary.higher_is_better, protocol)


def _with_headings(columns: Sequence[Column]) -> list[Column]:
    """Say in each heading which options set columns of the same task apart."""
    headed = []
    for column in columns:
        same_task = [other.protocol for other in columns if other.task == column.task]
        told = [
            f"{name}={json.dumps(value)}"
            for name, value in sorted(column.protocol.items())
            if any(name not in other or other[name] != value for other in same_task)
        ]
        headed.append(replace(column, heading=" ".join([column.task, *told])))
    return headed


def _drop_incomplete_seeds(
    runs: Mapping[str, Sequence[RunResult]],
) -> tuple[dict[str, list[RunResult]], list[str]]:
    """Leave out seeds that lack a fold: a mean over fewer folds is another quantity, not a noisier one."""
    folds = {run.fold for label in runs for run in runs[label]}
    complete: dict[str, list[RunResult]] = {}
    notes = []
    for label in runs:
        by_seed = _group(runs[label], lambda run: run.seed)
        complete[label] = []
        for seed, of_seed in sorted(by_seed.items()):
            missing = sorted(str(fold) for fold in folds - {run.fold for run in of_seed})
            if missing:
                notes.append(f"{of_seed[0].task}: {label}, seed {seed}, is left out, it lacks {', '.join(missing)}.")
            else:
                complete[label] += of_seed
    return complete, notes


def _fold_notes(runs: Mapping[str, Sequence[RunResult]]) -> list[str]:
    """Say which folds a score is the mean of: two of five are not the task's score."""
    everything = [run for label in runs for run in runs[label]]
    folds = sorted({run.fold for run in everything if run.fold is not None})
    return [f"{everything[0].task}: the mean of {', '.join(folds)}."] if folds else []


def _config_notes(runs: Mapping[str, Sequence[RunResult]]) -> list[str]:
    """Say which rows were trained with different configs. Folds differ in their config by design."""
    everything = [run for label in runs for run in runs[label]]
    by_fold = _group(everything, lambda run: run.fold)
    if all(len({run.config_sha256 for run in of_fold}) == 1 for of_fold in by_fold.values()):
        return []
    labels: dict[str, list[str]] = defaultdict(list)
    for run in everything:
        if run.label not in labels[run.config_sha256]:
            labels[run.config_sha256].append(run.label)
    configs = "; ".join(f"{config[:8]} ({', '.join(labels[config])})" for config in labels)
    return [
        f"{everything[0].task}: not all of these are comparable, their configs differ in more than "
        f"interface and seed: {configs}."
    ]


def _build_column(
    key: tuple[str, str, str, bool, str], runs: Mapping[str, Sequence[RunResult]], baseline: str
) -> tuple[Column, dict[str, Cell]]:
    scores = {label: _scores(of_label) for label, of_label in runs.items() if of_label}
    means = {label: fmean(of_label) for label, of_label in scores.items()}
    task, split, metric, higher_is_better, protocol = key
    # Two digits of a percentage; a fraction (an EER of 0.0512) needs four to tell as much.
    is_small = metric not in SHOWN_AS_PERCENT and all(abs(mean) < 1 for mean in means.values())
    column = Column(
        task,
        split,
        metric,
        higher_is_better,
        protocol=json.loads(protocol),
        heading=task,
        decimals=4 if is_small else 2,
    )

    shown = {label: column.rounded(mean) for label, mean in means.items()}
    best = (max if higher_is_better else min)(shown.values()) if len(shown) > 1 else None
    cells = {
        label: Cell(
            mean=mean,
            std=stdev(scores[label]) if len(scores[label]) > 1 else None,
            seeds=tuple(sorted({run.seed for run in runs[label]})),
            difference=mean - means[baseline] if baseline in means and label != baseline else None,
            is_best=shown[label] == best,
            parameters=tuple(sorted({run.parameters["interface"] for run in runs[label]})),
            configs=tuple(sorted({run.config_sha256 for run in runs[label]})),
        )
        for label, mean in means.items()
    }
    return column, cells


def _scores(runs: Iterable[RunResult]) -> list[float]:
    """Return one score for each seed: the mean over its folds."""
    by_seed = _group(runs, lambda run: run.seed)
    return [fmean(run.primary.value for run in of_seed) for of_seed in by_seed.values()]


def _group(results: Iterable[RunResult], key: Any) -> dict[Any, list[RunResult]]:
    groups: dict[Any, list[RunResult]] = defaultdict(list)
    for result in results:
        groups[key(result)].append(result)
    return dict(groups)
