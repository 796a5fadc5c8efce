"""A leaderboard for the terminal, readable with and without colour."""

import io
from collections.abc import Callable, Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from s3prl_interfaces.results import display
from s3prl_interfaces.results.board import Leaderboard, PublishedRow, Row, Table

LABEL_WIDTH = 20
WIDEST = 10_000
PUBLISHED = "italic dim"

Item = int | str
"""What a block shows beside the interfaces: the index of a task's column, or the title of a column on all tasks."""


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
            below = _below(table)
            for line in below:
                console.print(Text(line))
            if below:
                console.print()
        if board.problems:
            console.print(Text("Not counted:", style="bold"))
            for problem in board.problems:
                console.print(Text(f"! {problem.folder}: {problem.text}"))
            console.print()
        console.print(Text(display.legend(board, mark="*"), style="dim"))
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _below(table: Table) -> list[str]:
    sources = [f"[{number}] {source}" for number, source in enumerate(display.sources(table), start=1)]
    superb = [display.superb_note(table)] if table.superb_tasks else []
    return [*sources, *superb, *(f"! {note}" for note in table.notes)]


def _blocks(table: Table, console: Console) -> Iterator[RichTable]:
    block: list[Item] = []
    for item in [*range(len(table.columns)), *_overall(table)]:
        if block and _width(_draw(table, [*block, item]), console) > console.width:
            yield _draw(table, block)
            block = []
        block.append(item)
    yield _draw(table, block)


def _overall(table: Table) -> dict[str, Callable[[Row], Text]]:
    """What is shown of each interface over all tasks."""
    columns: dict[str, Callable[[Row], Text]] = {}
    if table.superb_tasks:
        columns[display.SUPERB_TITLE] = _superb_s
    columns["params"] = lambda row: Text(display.parameters(row, short=True))
    if display.has_macs(table):
        columns["MACs/s"] = lambda row: Text(display.macs(row))
    return columns


def _width(block: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(width=WIDEST), block).maximum


def _draw(table: Table, items: Sequence[Item]) -> RichTable:
    drawn = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    indices = [item for item in items if isinstance(item, int)]
    published = [row for row in table.published if any(row.values[index] is not None for index in indices)]
    labels = [_label(row) for row in table.rows]
    above = "\n" if indices else ""  # tasks have headings of two lines
    drawn.add_column(f"{above}interface", overflow="fold", max_width=LABEL_WIDTH)
    cells = [[label] for label in labels]
    references = [[Text(f"{row.label} [{display.source_number(table, row)}]", style=PUBLISHED)] for row in published]
    for item in items:
        if isinstance(item, str):
            drawn.add_column(f"{above}{item}", justify="right", no_wrap=True)
            _extend(cells, [_overall(table)[item](row) for row in table.rows])
            continue
        column = table.columns[item]
        drawn.add_column(Text(f"{column.heading} {column.split}\n{display.metric_title(column)}"), no_wrap=True)
        values = _values(table, item, published)
        _extend([*cells, *references], values)
        if display.has_differences(table, item):
            drawn.add_column("\nΔ", justify="right", no_wrap=True)
            _extend(cells, _differences(table, item))
            _extend(references, [Text()] * len(references))
    if indices:
        drawn.add_column("\nseeds", justify="right", no_wrap=True)
        _extend(cells, [Text(display.seeds(row.cells[index] for index in indices)) for row in table.rows])
    for line in cells:
        drawn.add_row(*line)
    if references:
        drawn.add_section()
        drawn.add_row(Text("published:", style=PUBLISHED))
    for line in references:
        drawn.add_row(*line)
    return drawn


def _label(row: Row) -> Text:
    # `Text` and not markup: options may be lists, and rich would take their brackets for styles.
    if len(row.label) > LABEL_WIDTH and row.options:
        return Text(f"{row.interface}\n{row.label[len(row.interface) :]}")
    return Text(row.label)


def _values(table: Table, index: int, published: Sequence[PublishedRow]) -> list[Text]:
    """Line up the points and the ± of one column; the star says without colour what bold says with it."""
    column = table.columns[index]
    cells = [row.cells[index] for row in table.rows]
    means = [display.mean(column, cell) for cell in cells]
    figures = [display.published(column, row.values[index]) for row in published]
    spreads = [f"±{text}" if text else "" for text in (display.std(column, cell) for cell in cells)]
    width = max(map(len, [*means, *figures]))
    texts = []
    for cell, mean, spread in zip(cells, means, spreads, strict=True):
        is_best = cell is not None and cell.is_best
        text = f"{mean:>{width}}{'*' if is_best else ' '} {spread}"
        texts.append(Text(text.rstrip(), style="bold" if is_best else ""))
    return [*texts, *(Text(f"{figure:>{width}}", style=PUBLISHED) for figure in figures)]


def _differences(table: Table, index: int) -> list[Text]:
    """Line up the points, with a place for the mark if any is marked."""
    texts = []
    for row in table.rows:
        cell = row.cells[index]
        mark = "†" if cell is not None and cell.is_significant else " "
        text = display.difference(table.columns[index], cell)
        texts.append(Text(text + (mark if display.has_marks(table, index) else "")))
    return texts


def _superb_s(row: Row) -> Text:
    text = display.superb_s(row)
    return Text(f"{text}{'*' if row.is_best_overall else ' '}", style="bold" if row.is_best_overall else "")


def _extend(lines: list[list[Text]], column: Sequence[Text]) -> None:
    for line, text in zip(lines, column, strict=True):
        line.append(text)
