r"""A leaderboard for a paper: one ``booktabs`` table for each upstream.

The text needs ``\usepackage{booktabs}`` and no other package, with any engine; everything that is not ASCII and could
come from a name is left to the engine's UTF-8.
"""

import re
from collections.abc import Iterable

from s3prl_interfaces.results import display
from s3prl_interfaces.results.board import Cell, Column, Leaderboard, PublishedRow, Row, Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "Δ": r"$\Delta$",
    "†": r"$^\dagger$",
    "\n": " ",
}


def render_latex(board: Leaderboard) -> str:
    """Write one ``table`` for each upstream, the legend in its caption; notes are comments above."""
    parts = [r"% Needs \usepackage{booktabs}."]
    if board.problems:
        lines = [f"{problem.folder}: {problem.text}" for problem in board.problems]
        parts.append(_comments(["Not counted:", *lines]))
    parts += [_table(board, table) for table in board.tables]
    return "\n\n".join(parts) + "\n"


def _table(board: Leaderboard, table: Table) -> str:
    titles, metrics, alignment = [""], ["interface"], "l"
    for index, column in enumerate(table.columns):
        wide = display.has_differences(table, index)
        title = escape(f"{column.heading} {column.split}")
        titles.append(rf"\multicolumn{{2}}{{c}}{{{title}}}" if wide else title)
        metrics += [escape(display.metric_title(column)), *([escape("Δ")] if wide else [])]
        alignment += "rr" if wide else "r"
    overall = [*([display.SUPERB_TITLE] if table.superb_tasks else []), "params"]
    overall += [*(["MACs/s"] if display.has_macs(table) else []), "seeds"]
    titles += [""] * len(overall)
    metrics += map(escape, overall)
    alignment += "r" * len(overall)
    lines = [
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        _line(titles),
        _line(metrics),
        r"\midrule",
        *(_line(_row(table, row)) for row in table.rows),
    ]
    if table.published:
        lines.append(r"\midrule")
        lines.append(_line([rf"\multicolumn{{{len(alignment)}}}{{l}}{{\emph{{published}}}}"]))
        lines += [_line(_published(table, row, len(alignment))) for row in table.published]
    lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join(
        [
            *([_comments(table.notes)] if table.notes else []),
            r"\begin{table}",
            r"\centering",
            *lines,
            rf"\caption{{{_caption(board, table)}}}",
            r"\end{table}",
        ]
    )


def _caption(board: Leaderboard, table: Table) -> str:
    parts = [f"Upstream: {table.upstream}."]
    if table.superb_tasks:
        parts.append(display.superb_note(table))
    parts.append(display.legend(board, mark="Bold"))
    parts += [f"[{number}] {source}" for number, source in enumerate(display.sources(table), start=1)]
    return escape(" ".join(parts))


def _row(table: Table, row: Row) -> list[str]:
    texts = [rf"\texttt{{{escape(row.label)}}}"]
    for index, (column, cell) in enumerate(zip(table.columns, row.cells, strict=True)):
        texts.append(_value(column, cell))
        if display.has_differences(table, index):
            texts.append(_difference(column, cell))
    if table.superb_tasks:
        texts.append(_bold(_number(display.superb_s(row)), row.is_best_overall))
    macs = [_number(display.macs(row))] if display.has_macs(table) else []
    return [*texts, _number(display.parameters(row, short=True)), *macs, _number(display.seeds(row.cells))]


def _published(table: Table, row: PublishedRow, width: int) -> list[str]:
    # The braces keep a number in brackets, at the start of a line, from being taken for an option of the line before.
    texts = [rf"{{\emph{{{escape(row.label)}}} [{display.source_number(table, row)}]}}"]
    for index, (column, value) in enumerate(zip(table.columns, row.values, strict=True)):
        texts.append(_number(display.published(column, value)))
        if display.has_differences(table, index):
            texts.append("")
    return texts + [""] * (width - len(texts))


def _value(column: Column, cell: Cell | None) -> str:
    std = display.std(column, cell)
    text = _number(display.mean(column, cell)) + (rf" $\pm$ {std}" if std else "")
    return _bold(text, cell is not None and cell.is_best)


def _difference(column: Column, cell: Cell | None) -> str:
    text = display.difference(column, cell)
    mark = r"^\dagger" if cell is not None and cell.is_significant else ""
    return f"${text}{mark}$" if text else ""


def _number(text: str) -> str:
    """A hyphen before a digit is a minus sign, one alone a dash."""
    return "--" if text == display.MISSING else re.sub(r"(?<!\S)-(?=\d)", "$-$", text)


def _bold(text: str, is_best: bool) -> str:
    return rf"\textbf{{{text}}}" if is_best else text


def _line(texts: Iterable[str]) -> str:
    return " & ".join(texts) + r" \\"


def _comments(lines: Iterable[str]) -> str:
    return "\n".join(f"% {' '.join(line.split())}" for line in lines)


def escape(text: str) -> str:
    """Write any text so that LaTeX shows it."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)
