"""The words and numbers of a leaderboard as a person reads them."""

from collections.abc import Iterable

from s3prl_interfaces.results.leaderboard import Cell, Column, Leaderboard, Row, Table

MISSING = "-"


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
    if cell is None or cell.difference is None:
        return ""
    shown = column.rounded(cell.difference)
    # A sign on what is shown as zero would tell of a difference too small to mean anything.
    return f"{shown:+.{column.decimals}f}" if shown else f"{0:.{column.decimals}f}"


def has_differences(table: Table, index: int) -> bool:
    """Tell whether any row has a difference to the baseline in column ``index``."""
    cells = (row.cells[index] for row in table.rows)
    return any(cell is not None and cell.difference is not None for cell in cells)


def parameters(row: Row, short: bool = False) -> str:
    """Return the number of trained interface parameters, ``short`` for a narrow column."""
    return " to ".join(_count(number, short) for number in _ends(row.parameters)) or MISSING


def seeds(cells: Iterable[Cell | None]) -> str:
    """Return the number of seeds, one for each cell if they differ."""
    counts = [str(len(cell.seeds)) if cell else MISSING for cell in cells]
    present = set(counts) - {MISSING}
    return present.pop() if len(present) == 1 else "/".join(counts)


def legend(board: Leaderboard, mark: str) -> str:
    """Explain the table; ``mark`` says how the best is shown."""
    return (
        f"Mean ± sample standard deviation over seeds. Δ: difference to {board.baseline}. ↑ higher, ↓ lower "
        f"is better. {mark}: best of the column, ties at the shown precision included. params: trained "
        "parameters of the interface. seeds: how many, for each column where they differ."
    )


def _ends(numbers: tuple[int, ...]) -> tuple[int, ...]:
    return numbers if len(numbers) < 2 else (numbers[0], numbers[-1])


def _count(number: int, short: bool) -> str:
    return f"{number / 1e6:.2f}M" if short and number >= 100_000 else f"{number:,}"
