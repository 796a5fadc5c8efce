"""Which differences on a leaderboard are more than the choice of utterances explains."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tqdm import tqdm

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.board import Cell, Column, Leaderboard, Row, Table
from s3prl_interfaces.results.predictions import read_scores
from s3prl_interfaces.results.scores import Scores
from s3prl_interfaces.results.significance import Comparison, compare


def add_comparisons(board: Leaderboard) -> Leaderboard:
    """Compare every cell with the baseline's, utterance by utterance, from the predictions that lie beside the results.

    The p-values of a column are corrected together (:func:`holm`). Where predictions are missing or do not fit, the
    cell is left as it is and a note says why.
    """
    cells = (
        row.cells[index]
        for table in board.tables
        for index, column in enumerate(table.columns)
        for row in table.rows
        if column.is_primary
    )
    total = sum(cell is not None and cell.difference is not None for cell in cells)
    # Many seeds of a large test set take a minute: what is over sooner needs no bar.
    with tqdm(total=total, desc="compare utterances", delay=2, leave=False, disable=None) as progress:
        return replace(board, tables=tuple(_compare_table(table, board.baseline, progress) for table in board.tables))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for how many they are.

    Holm, "A simple sequentially rejective multiple test procedure", 1979: the k-th smallest of n is multiplied by
    ``n - k + 1``, and none may come out smaller than a smaller one did.
    """
    corrected = [0.0] * len(p_values)
    least = 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = least
    return corrected


def _compare_table(table: Table, baseline: str, progress: tqdm) -> Table:
    rows = list(table.rows)
    notes = list(table.notes)
    for index, column in enumerate(table.columns):
        if column.is_primary:
            comparisons, column_notes = _compare_column(index, column, rows, baseline, progress)
            rows = _with(rows, index, comparisons)
            notes += column_notes + _spread_notes(column, [row.cells[index] for row in rows], rows, baseline)
    return replace(table, rows=tuple(rows), notes=tuple(notes))


def _spread_notes(column: Column, cells: Sequence[Cell | None], rows: Sequence[Row], baseline: str) -> list[str]:
    """Say which significant differences are smaller than the spread over seeds: the test knows of utterances alone."""
    spreads = {row.label: cell.std or 0.0 for row, cell in zip(rows, cells, strict=True) if cell is not None}
    return [
        f"{column.heading}: {row.label} differs from {baseline} significantly over these utterances, but by less than "
        "one of the two varies over its seeds (±): more seeds may turn it round."
        for row, cell in zip(rows, cells, strict=True)
        if cell is not None
        and cell.is_significant
        and abs(cell.difference or 0.0) < max(spreads[row.label], spreads.get(baseline, 0.0))
    ]


def _compare_column(
    index: int, column: Column, rows: Sequence[Row], baseline: str, progress: tqdm
) -> tuple[dict[str, Comparison], list[str]]:
    cells = {row.label: cell for row in rows if (cell := row.cells[index]) is not None}
    others = [label for label in cells if label != baseline]
    if baseline not in cells or not others:
        return {}, []
    comparisons: dict[str, Comparison] = {}
    problems: dict[str, list[str]] = {}
    try:
        reference = _scores(cells[baseline])
    except ResultError as error:
        return {}, [f"{column.heading}: differences are not tested. {error}"]
    if reference is None:
        return {}, [
            f"{column.heading}: differences are not tested, {column.metric} is not known utterance by utterance."
        ]
    for label in others:
        try:
            scores = _scores(cells[label])
            if scores is not None:
                comparisons[label] = compare(scores, reference)
        except ResultError as error:
            problems.setdefault(str(error), []).append(label)
        progress.update()
    return comparisons, [
        f"{column.heading}: the difference of {', '.join(labels)} is not tested. {problem}"
        for problem, labels in problems.items()
    ]


def _scores(cell: Cell) -> list[list[Scores]] | None:
    """Return what each utterance scored, seeds x folds."""
    scores = [[read_scores(run.result, run.folder) for run in unit] for unit in cell.units]
    known = [[of_run for of_run in unit if of_run is not None] for unit in scores]
    return known if all(map(len, known)) else None


def _with(rows: Sequence[Row], index: int, comparisons: Mapping[str, Comparison]) -> list[Row]:
    corrected = dict(zip(comparisons, holm([done.p_value for done in comparisons.values()]), strict=True))
    changed = []
    for row in rows:
        cell = row.cells[index]
        if cell is not None and row.label in comparisons:
            cell = replace(cell, comparison=comparisons[row.label], p_corrected=corrected[row.label])
        changed.append(replace(row, cells=(*row.cells[:index], cell, *row.cells[index + 1 :])))
    return changed
