"""A leaderboard as Markdown, to be pasted where GitHub shows it."""

from collections.abc import Iterable

from s3prl_interfaces.results import display
from s3prl_interfaces.results.board import Cell, Column, Leaderboard, PublishedRow, Row, Table


def render_markdown(board: Leaderboard) -> str:
    """Write one table for each upstream, what does not count, and a legend below."""
    parts = [part for table in board.tables for part in _table(table)]
    if board.problems:
        lines = [f"- {_plain(f'{problem.folder}: {problem.text}')}" for problem in board.problems]
        parts.append("\n".join(["### not counted", "", *lines]))
    return "\n\n".join([*parts, display.legend(board, mark="**bold**")]) + "\n"


def _table(table: Table) -> list[str]:
    titles, alignments = ["interface"], ["---"]
    for index, column in enumerate(table.columns):
        titles.append(f"{column.heading} {column.split} {display.metric_title(column)}")
        if display.has_differences(table, index):
            titles.append(_difference_title(table, index))
    if table.superb_tasks:
        titles.append(display.SUPERB_TITLE)
    titles += ["params", *(["MACs/s"] if display.has_macs(table) else []), "seeds"]
    alignments += ["---:"] * (len(titles) - 1)
    lines = [
        _line(titles),
        _line(alignments),
        *(_line(_row(table, row)) for row in table.rows),
        *(_line(_published(table, row, len(titles))) for row in table.published),
    ]
    below = [f"[{number}] {source}" for number, source in enumerate(display.sources(table), start=1)]
    if table.superb_tasks:
        below.append(display.superb_note(table))
    notes = "\n".join(f"- {_plain(note)}" for note in [*below, *table.notes])
    return [f"### upstream: {_plain(table.upstream)}", "\n".join(lines), *([notes] if notes else [])]


def _difference_title(table: Table, index: int) -> str:
    cells = (row.cells[index] for row in table.rows)
    compared = [cell.comparison for cell in cells if cell is not None and cell.comparison is not None]
    return f"Δ ({compared[0].level:.0%} interval)" if compared else "Δ"


def _row(table: Table, row: Row) -> list[str]:
    texts = [f"`{row.label}`"]
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        texts.append(_value(column, cell))
        if display.has_differences(table, index):
            texts.append(_difference(column, cell))
    if table.superb_tasks:
        texts.append(_bold(display.superb_s(row), row.is_best_overall))
    macs = [display.macs(row)] if display.has_macs(table) else []
    return [*texts, display.parameters(row), *macs, display.seeds(row.cells)]


def _published(table: Table, row: PublishedRow, width: int) -> list[str]:
    texts = [f"*published: {_plain(row.label)}* \\[{display.source_number(table, row)}\\]"]
    for index, (column, value) in enumerate(zip(table.columns, row.values, strict=True)):
        texts.append("" if value is None else f"*{display.published(column, value)}*")
        if display.has_differences(table, index):
            texts.append("")
    return texts + [""] * (width - len(texts))


def _value(column: Column, cell: Cell | None) -> str:
    std = display.std(column, cell)
    text = display.mean(column, cell) + (f" ± {std}" if std else "")
    return _bold(text, cell is not None and cell.is_best)


def _difference(column: Column, cell: Cell | None) -> str:
    text = display.difference(column, cell)
    if cell is None or cell.comparison is None:
        return text
    return f"{text}{'†' if cell.is_significant else ''} ({display.interval(column, cell)})"


def _bold(text: str, is_best: bool) -> str:
    return f"**{text}**" if is_best else text


def _line(texts: Iterable[str]) -> str:
    # A bar or a line break would end the cell, even between backticks.
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def _plain(text: str) -> str:
    # Outside code, GitHub would read these as emphasis or as a tag.
    for sign in "\\*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return text
