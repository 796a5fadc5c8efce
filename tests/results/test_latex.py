"""The LaTeX form: compiled where there is a LaTeX, and checked by rule everywhere."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from s3prl_interfaces.results import Problem, render_leaderboard
from s3prl_interfaces.results.latex import escape
from s3prl_interfaces.results.published import Published
from s3prl_interfaces.results.significance import Comparison

NASTY = 'a_b & 50% $x$ #1 {y} ~z^2 \\end <p|q> "r" [1] *'
"""All of LaTeX's special characters."""

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.fixture
def text(make_result, board):
    """Two upstreams of nasty names, seeds, a marked negative difference, a missing score, published rows and notes."""
    options = {"mode": NASTY}
    wer = {
        "task": "asr",
        "metric": "wer",
        "higher_is_better": False,
        "split": "test-clean",
        "protocol": {"rule": NASTY},
    }
    results = [
        make_result(0.97, seed=1, macs_per_second=650),
        make_result(0.99, seed=2, macs_per_second=650),
        make_result(0.5, interface="hconv", interface_options=options, trained=4_424_832),
        make_result(0.5, interface="[x]"),
        make_result(8.0, **wer),
        make_result(0.9, upstream=NASTY),
        make_result(7.0, upstream=NASTY, **{**wer, "protocol": {}}),
    ]
    published = [
        Published("[Base]", ("*",), NASTY, NASTY, {("ic", "acc"): 5.11}),
        Published("*Base*", ("*",), None, "x", {("ic", "acc"): 5.11}),
    ]
    built = board(results, published=published)
    tables = []
    for table in built.tables:
        rows = []
        for row in table.rows:
            cells = [
                replace(cell, comparison=Comparison(-0.48, -0.5, -0.4, 0.001, 0.95, 9, 5000), p_corrected=0.001)
                if cell is not None and cell.difference is not None and row.interface == "hconv"
                else cell
                for cell in row.cells
            ]
            rows.append(replace(row, cells=tuple(cells)))
        tables.append(replace(table, rows=tuple(rows), notes=(*table.notes, f"a note\n\n{NASTY}")))
    return render_leaderboard(replace(built, tables=tuple(tables), problems=(Problem(Path("a\nb"), NASTY),)), "latex")


def _without_comments(text):
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def _plain(text):
    """Take every escaped character out, so that what is left has a meaning."""
    return re.sub(r"\\[&%$#_{}]", "", text)


def test_lines(text):
    lines = text.splitlines()
    assert lines[0] == r"% Needs \usepackage{booktabs}."
    rows = [line for line in lines if line.startswith(r"\texttt{")]
    assert rows[:3] == [
        r"\texttt{weighted\_sum} & 7.00 & 90.00 & 864 & 13 & 1 \\",
        r"\texttt{weighted\_sum} & 8.00 & \textbf{98.00 $\pm$ 1.41} &  & 13 & 650 & 1/2 \\",
        r"\texttt{[x]} & -- & 50.00 & $-48.00$ & 13 & -- & 1 \\",
    ]
    assert rows[3].endswith(r"& -- & 50.00 & $-48.00^\dagger$ & 4.42M & -- & 1 \\")
    assert r" & \multicolumn{2}{c}{ic test} & " in text
    assert r"acc (\%) $\uparrow$ & $\Delta$ &" in text
    assert r"{\emph{[Base]} [1]}" not in text
    assert r"{\emph{*Base*} [2]} & -- & 5.11 &  &  &  &  \\" in lines


def test_every_row_has_every_column(text):
    tables = re.findall(r"\\begin\{tabular\}\{(\w+)\}\n(.*?)\\end\{tabular\}", _without_comments(text), flags=re.DOTALL)
    assert len(tables) == 2
    for alignment, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 4
        for row in rows:
            spans = [int(width) - 1 for width in re.findall(r"\\multicolumn\{(\d+)\}", row)]
            assert _plain(row).count("&") + sum(spans) + 1 == len(alignment), row


def test_what_has_a_meaning_is_meant(text):
    plain = _plain(_without_comments(text))
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert "$$" not in plain
    assert "%" not in plain
    assert "#" not in plain
    assert "~" not in plain
    # Of what is left only maths and columns may have these.
    outside = re.sub(r"\$[^$]*\$", "", plain)
    assert "^" not in outside
    assert "_" not in outside
    assert "<" not in outside
    # After the end of a row, LaTeX takes a bracket or a star for an option.
    assert not re.search(r"\\\\\s*[\[*]", plain)


def test_a_comment_stays_in_its_line(text):
    (note,) = {line for line in text.splitlines() if "a note" in line}
    assert note == f"% a note {NASTY}"
    assert f"% a b: {NASTY}" in text.splitlines()


def test_escape():
    assert escape("100% of a_b & c") == r"100\% of a\_b \& c"
    assert escape("#1 {$x}") == r"\#1 \{\$x\}"
    assert escape("\\x^~") == r"\textbackslash{}x\textasciicircum{}\textasciitilde{}"
    assert escape("Δ ± é\n") == r"$\Delta$ $\pm$ é "


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs a LaTeX with booktabs")
def test_it_compiles(text, tmp_path):
    (tmp_path / "table.tex").write_text(DOCUMENT % text, encoding="utf-8")
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "table.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "table.pdf").stat().st_size > 1000
