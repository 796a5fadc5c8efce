"""The words and numbers of a leaderboard as a person reads them."""

from collections.abc import Iterable, Iterator

from s3prl_interfaces.results.board import SIGNIFICANT, Cell, Column, Leaderboard, PublishedRow, Row, Table

MISSING = "-"

SUPERB_TITLE = "superb_s ↑"


def metric_title(column: Column) -> str:
    """Return the metric with its unit and the direction that is better, such as ``acc (%) ↑``."""
    unit = " (%)" if column.scale == 100 else ""
    return f"{column.metric}{unit} {'↑' if column.higher_is_better else '↓'}"


def mean(column: Column, cell: Cell | None) -> str:
    """Return the mean, or a dash if there is no result."""
    return MISSING if cell is None else f"{column.rounded(cell.mean):.{column.decimals}f}"


def std(column: Column, cell: Cell | None) -> str:
    """Return the standard deviation, empty if there is none."""
    return "" if cell is None or cell.std is None else f"{column.rounded(cell.std):.{column.decimals}f}"


def difference(column: Column, cell: Cell | None) -> str:
    """Return the signed difference to the baseline, empty if there is none."""
    return "" if cell is None or cell.difference is None else _signed(column, cell.difference)


def interval(column: Column, cell: Cell | None) -> str:
    """Return the interval of the difference, such as ``+0.31 to +0.52``; empty if there is none."""
    if cell is None or cell.comparison is None:
        return ""
    return f"{_signed(column, cell.comparison.low)} to {_signed(column, cell.comparison.high)}"


def has_differences(table: Table, index: int) -> bool:
    """Tell whether any row has a difference to the baseline in column ``index``."""
    return any(cell is not None and cell.difference is not None for cell in _column(table, index))


def has_marks(table: Table, index: int) -> bool:
    """Tell whether any difference of column ``index`` is significant."""
    return any(cell is not None and cell.is_significant for cell in _column(table, index))


def superb_s(row: Row) -> str:
    """Return the overall score as SUPERB's site rounds it, or a dash."""
    return MISSING if row.superb_s is None else f"{round(row.superb_s)}"


def parameters(row: Row, short: bool = False) -> str:
    """Return the number of trained interface parameters, ``short`` for a narrow column."""
    return _range(_short(n) if short and n >= 100_000 else f"{n:,}" for n in row.parameters)


def macs(row: Row) -> str:
    """Return the multiply-accumulate operations for a second of audio, such as ``1.24G``."""
    return _range(map(_short, row.macs_per_second))


def has_macs(table: Table) -> bool:
    """Tell whether any result says its multiply-accumulate operations."""
    return any(row.macs_per_second for row in table.rows)


def seeds(cells: Iterable[Cell | None]) -> str:
    """Return the number of seeds, one for each cell if they differ."""
    counts = [str(len(cell.seeds)) if cell else MISSING for cell in cells]
    present = set(counts) - {MISSING}
    return present.pop() if len(present) == 1 else "/".join(counts)


def published(column: Column, value: float | None) -> str:
    """Return a published figure with the digits of its column, or a dash."""
    return MISSING if value is None else f"{value:.{column.decimals}f}"


def sources(table: Table) -> list[str]:
    """Say where the published figures of a table are from, in the order of :func:`source_number`."""
    return list(dict.fromkeys(f"{row.upstream}: {row.source}." for row in table.published))


def source_number(table: Table, row: PublishedRow) -> int:
    """Return the number of a published row's source, from 1."""
    return sources(table).index(f"{row.upstream}: {row.source}.") + 1


def superb_note(table: Table) -> str:
    """Say which tasks the overall score is over."""
    return (
        f"superb_s: SUPERB's overall score, partial: over {', '.join(table.superb_tasks)} only. On SUPERB's data, 0 is "
        "FBANK and 1000 the best of 2021."
    )


def legend(board: Leaderboard, mark: str, significant: str = "†") -> str:
    """Explain the tables; ``mark`` says how the best is shown, ``significant`` what is."""
    return " ".join(_legend(board, mark, significant))


def _legend(board: Leaderboard, mark: str, significant: str) -> Iterator[str]:
    cells = [cell for table in board.tables for row in table.rows for cell in row.cells if cell]
    yield "Mean ± sample standard deviation over seeds. ↑ higher, ↓ lower is better."
    yield f"Δ: difference to {board.baseline}."
    yield f"{mark}: best of the column, ties at the shown precision included."
    if compared := [cell.comparison for cell in cells if cell.comparison]:
        yield (
            f"{significant}: p < {SIGNIFICANT} in a paired bootstrap over utterances "
            f"({compared[0].resamples} resamples), Holm's correction within the column; it says nothing of other seeds."
        )
    yield "params: trained parameters of the interface."
    if any(map(has_macs, board.tables)):
        yield "MACs/s: multiply-accumulate operations of the interface for a second of audio."
    yield "seeds: how many, for each column where they differ."
    if any(table.published for table in board.tables):
        yield "Published figures were not measured here and are not compared."


def _column(table: Table, index: int) -> list[Cell | None]:
    return [row.cells[index] for row in table.rows]


def _signed(column: Column, value: float) -> str:
    shown = column.rounded(value)
    # A sign on what is shown as zero would tell of a difference too small to mean anything.
    return f"{shown:+.{column.decimals}f}" if shown else f"{0:.{column.decimals}f}"


def _range(texts: Iterable[str]) -> str:
    ordered = list(texts)
    return " to ".join(dict.fromkeys([ordered[0], ordered[-1]])) if ordered else MISSING


def _short(number: int) -> str:
    """Write a count with three digits: ``1.24G``."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= 0.9995 * size:  # else it would be shown as 1e+03 of the next smaller unit
            return f"{number / size:.3g}{unit}"
    return str(number)
