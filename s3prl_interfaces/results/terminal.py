"""A leaderboard for the terminal, readable with and without colour."""

import io
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from s3prl_interfaces.results import display
from s3prl_interfaces.results.leaderboard import Leaderboard, Row, Table

LABEL_WIDTH = 20
WIDEST = 10_000


def render_terminal(board: Leaderboard, width: int | None = None, color: bool = False) -> str:
    """Draw the leaderboard.

    Tasks that do not fit beside each other go into a further block below; nothing is ever cut off.

    Args:
        board: What to draw.
        width: Characters in a line; by default those of the terminal, or 80 without one.
        color: Whether to use escape sequences.
    """
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        no_color=not color,
        legacy_windows=False,
        force_jupyter=False,
    )
    with console.capture() as capture:
        for table in board.tables:
            console.print(Text(f"upstream: {table.upstream}", style="bold"))
            for block in _blocks(table, console):
                # A single task wider than the line is left to the terminal to wrap.
                needed = _width(block, console)
                block.width = needed if needed > console.width else None
                console.print(block, crop=False)
                console.print()
            for note in table.notes:
                console.print(Text(f"! {note}"))
            if table.notes:
                console.print()
        console.print(Text(display.legend(board, mark="*"), style="dim"))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _blocks(table: Table, console: Console) -> Iterator[RichTable]:
    block: list[int] = []
    for index in range(len(table.columns)):
        if block and _width(_draw(table, [*block, index]), console) > console.width:
            yield _draw(table, block)
            block = []
        block.append(index)
    yield _draw(table, block)


def _width(block: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=WIDEST), block).maximum


def _draw(table: Table, indices: Sequence[int]) -> RichTable:
    drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    cells = [[_label(row)] for row in table.rows]
    drawn.add_column("\ninterface", overflow="fold", max_width=LABEL_WIDTH)
    for index in indices:
        column = table.columns[index]
        drawn.add_column(Text(f"{column.heading} {column.split}\n{display.metric_title(column)}"), no_wrap=True)
        _extend(cells, _values(table, index))
        if display.has_differences(table, index):
            drawn.add_column("\nΔ", justify="right", no_wrap=True)
            _extend(cells, [Text(display.difference(column, row.cells[index])) for row in table.rows])
    drawn.add_column("\nparams", justify="right", no_wrap=True)
    _extend(cells, [Text(display.parameters(row, short=True)) for row in table.rows])
    drawn.add_column("\nseeds", justify="right", no_wrap=True)
    _extend(cells, [Text(display.seeds(row.cells[index] for index in indices)) for row in table.rows])
    for line in cells:
        drawn.add_row(*line)
    return drawn


def _label(row: Row) -> Text:
    # `Text` and not markup: options may be lists, and rich would take their brackets for styles.
    if len(row.label) > LABEL_WIDTH and row.options:
        return Text(f"{row.interface}\n{row.label[len(row.interface) :]}")
    return Text(row.label)


def _values(table: Table, index: int) -> list[Text]:
    """Line up the points and the ± of one column; the star says without colour what bold says with it."""
    column = table.columns[index]
    cells = [row.cells[index] for row in table.rows]
    means = [display.mean(column, cell) for cell in cells]
    spreads = [f"±{text}" if text else "" for text in (display.std(column, cell) for cell in cells)]
    width = max(map(len, means))
    texts = []
    for cell, mean, spread in zip(cells, means, spreads, strict=True):
        is_best = cell is not None and cell.is_best
        text = f"{mean:>{width}}{'*' if is_best else ' '} {spread}"
        texts.append(Text(text.rstrip(), style="bold" if is_best else ""))
    return texts


def _extend(lines: list[list[Text]], column: Sequence[Text]) -> None:
    for line, text in zip(lines, column, strict=True):
        line.append(text)
