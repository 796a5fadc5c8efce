"""A leaderboard as Markdown, to be pasted where GitHub shows it."""

from collections.abc import Iterable

from s3prl_interfaces.results import display
from s3prl_interfaces.results.leaderboard import Cell, Column, Leaderboard, Row, Table


def render_markdown(board: Leaderboard) -> str:
    """Write one table for each upstream and a legend below."""
    parts = [part for table in board.tables for part in _table(table)]
    return "\n\n".join([*parts, display.legend(board, mark="**bold**")]) + "\n"


def _table(table: Table) -> list[str]:
    titles, alignments = ["interface"], ["---"]
    for index, column in enumerate(table.columns):
        titles.append(f"{column.heading} {column.split} {display.metric_title(column)}")
        if display.has_differences(table, index):
            titles.append("Δ")
    titles += ["params", "seeds"]
    alignments += ["---:"] * (len(titles) - 1)
    lines = [_line(titles), _line(alignments), *(_line(_row(table, row)) for row in table.rows)]
    notes = "\n".join(f"- {_plain(note)}" for note in table.notes)
    return [f"### upstream: {_plain(table.upstream)}", "\n".join(lines), *([notes] if notes else [])]


def _row(table: Table, row: Row) -> list[str]:
    texts = [f"`{row.label}`"]
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        texts.append(_value(column, cell))
        if display.has_differences(table, index):
            texts.append(display.difference(column, cell))
    return [*texts, display.parameters(row), display.seeds(row.cells)]


def _value(column: Column, cell: Cell | None) -> str:
    std = display.std(column, cell)
    text = display.mean(column, cell) + (f" ± {std}" if std else "")
    return f"**{text}**" if cell is not None and cell.is_best else text


def _line(texts: Iterable[str]) -> str:
    # A bar or a line break would end the cell, even between backticks.
    return "| " + " | ".join(text.replace("|", "\\|").replace("\n", " ") for text in texts) + " |"


def _plain(text: str) -> str:
    # Outside code, GitHub would read these as emphasis or as a tag.
    for sign in "\\*_`<[":
        text = text.replace(sign, f"\\{sign}")
    return text
