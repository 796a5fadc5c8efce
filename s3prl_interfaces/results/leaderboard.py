"""From the results of many runs to one table for each upstream: interface x task."""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev
from typing import TypeVar

from s3prl_interfaces.errors import ConfigError, ResultError, unknown_name
from s3prl_interfaces.results.board import SHOWN_AS_PERCENT, Cell, Column, Leaderboard, Row, Table, Unit
from s3prl_interfaces.results.choice import Choice, choose_runs
from s3prl_interfaces.results.comparability import comparability_notes
from s3prl_interfaces.results.published import Published, published_rows
from s3prl_interfaces.results.runs import Found, Run
from s3prl_interfaces.results.superb_score import add_superb_scores, is_higher_better, second_metrics

DEFAULT_BASELINE = "weighted_sum"

Key = TypeVar("Key", bound=Hashable)


def build_leaderboard(
    found: Found, baseline: str = DEFAULT_BASELINE, published: Iterable[Published] = ()
) -> Leaderboard:
    """Average the results over seeds and compare them with a baseline.

    Args:
        found: One of each run, as :func:`~s3prl_interfaces.results.load_runs` gives them.
        baseline: The row that differences are taken to: a label such as ``hconv(kernel_size=3)``, or the name
            of an interface if only one row has it. If the default has no result, there are no differences.
        published: Figures to be shown below those of the same upstream.

    Raises:
        ResultError: There are no results, or two of the same run.
        ConfigError: ``baseline`` is not one row of the leaderboard.
    """
    if not found.runs:
        raise ResultError("There are no results to compare.")
    if len({run.result.identity for run in found.runs}) < len(found.runs):
        raise ResultError("Two of the results are of the same run: `load_runs` keeps the newer one.")
    published = list(published)
    baseline = _find_baseline(baseline, found.runs)
    by_upstream = _group((run.result.upstream, run) for run in found.runs)
    tables = tuple(_build_table(name, by_upstream[name], baseline, published) for name in sorted(by_upstream))
    return Leaderboard(baseline, tables, found.problems)


def _find_baseline(baseline: str, runs: Sequence[Run]) -> str:
    labels = {run.result.label for run in runs}
    if baseline in labels:
        return baseline
    matching = sorted({run.result.label for run in runs if run.result.interface == baseline})
    if len(matching) > 1:
        raise ConfigError(f"The baseline {baseline!r} is not one row but several. Name one: {'; '.join(matching)}.")
    if matching:
        return matching[0]
    if baseline == DEFAULT_BASELINE:
        return baseline
    raise ConfigError(unknown_name("baseline", baseline, labels))


def _build_table(upstream: str, runs: Sequence[Run], baseline: str, published: Sequence[Published]) -> Table:
    by_column = _group((_column_key(run), run) for run in runs)
    by_label = _group((run.result.label, run) for run in runs)
    labels = sorted(by_label, key=lambda label: (label != baseline, label))
    notes = [] if baseline in by_label else [f"There is no {baseline} here, so no differences are shown."]

    columns = []
    cells: dict[str, list[Cell | None]] = {label: [] for label in labels}
    for key in sorted(by_column):
        scored = {
            label: of_label for label in labels if (of_label := [r for r in by_column[key] if r.result.label == label])
        }
        choice = choose_runs(scored)
        notes += [*choice.notes, *comparability_notes(choice)]
        for column in _columns(key, choice):
            column, column_cells = _fill(column, choice, baseline)
            columns.append(column)
            for label in labels:
                cells[label].append(column_cells.get(label))
    columns = _with_headings(columns)

    rows = []
    for label in labels:
        result = by_label[label][0].result
        rows.append(Row(label, result.interface, result.interface_options, tuple(cells[label])))
    rows, superb_tasks, superb_notes = add_superb_scores(columns, rows)
    references, reference_notes = published_rows(published, upstream, columns)
    notes += superb_notes + reference_notes
    return Table(upstream, tuple(columns), tuple(rows), tuple(notes), superb_tasks, references)


def _column_key(run: Run) -> tuple[str, str, str, bool, str]:
    primary = run.result.primary
    protocol = json.dumps(run.result.protocol, sort_keys=True)
    return (run.result.task, primary.split, primary.name, primary.higher_is_better, protocol)


def _columns(key: tuple[str, str, str, bool, str], choice: Choice) -> list[Column]:
    """Return the column of the task's score, and those of what SUPERB reports beside it."""
    task, split, metric, higher_is_better, protocol = key
    first = Column(
        task,
        split,
        metric,
        higher_is_better,
        is_primary=True,
        protocol=json.loads(protocol),
        folds=choice.folds,
        heading=task,
        decimals=2,
    )
    others = [
        name for name in second_metrics(task, metric) if any(_has(name, units) for units in choice.units.values())
    ]
    return [
        first,
        *(
            replace(first, metric=name, higher_is_better=is_higher_better(task, name), is_primary=False)
            for name in others
        ),
    ]


def _has(metric: str, units: Iterable[Unit]) -> bool:
    return all(metric in run.result.metrics[run.result.primary.split] for unit in units for run in unit)


def _fill(column: Column, choice: Choice, baseline: str) -> tuple[Column, dict[str, Cell]]:
    """Return the cells of a column, and the column with the precision that they need."""
    scores = {label: _scores(column, units) for label, units in choice.units.items() if _has(column.metric, units)}
    means = {label: fmean(of_label) for label, of_label in scores.items()}
    # Two digits of a percentage; a fraction (an EER of 0.0512) needs four to tell as much.
    if column.metric not in SHOWN_AS_PERCENT and all(abs(mean) < 1 for mean in means.values()):
        column = replace(column, decimals=4)
    shown = {label: column.rounded(mean) for label, mean in means.items()}
    best = (max if column.higher_is_better else min)(shown.values()) if len(shown) > 1 else None
    cells = {
        label: Cell(
            mean=mean,
            std=stdev(scores[label]) if len(scores[label]) > 1 else None,
            units=choice.units[label],
            rates_tried=choice.rates_tried[label],
            difference=mean - means[baseline] if baseline in means and label != baseline else None,
            is_best=shown[label] == best,
        )
        for label, mean in means.items()
    }
    return column, cells


def _scores(column: Column, units: Iterable[Unit]) -> list[float]:
    """Return one score for each seed: the mean over its folds."""
    return [fmean(run.result.metrics[column.split][column.metric] for run in unit) for unit in units]


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


def _group(items: Iterable[tuple[Key, Run]]) -> Mapping[Key, list[Run]]:
    groups: dict[Key, list[Run]] = defaultdict(list)
    for key, run in items:
        groups[key].append(run)
    return groups
