"""What a sweep says of itself."""

from __future__ import annotations

from collections import Counter

from s3prl_interfaces.sweep.cells import Cell, Sweep
from s3prl_interfaces.sweep.command import shell_line


def describe(sweep: Sweep, *, rerun_failed: bool = False) -> str:
    """Every cell with its state, and the commands that are left to do; what is no command is a shell's comment."""
    states = {cell.folder: cell.state for cell in sweep.cells}
    runs = sweep.runs(rerun_failed=rerun_failed)
    todo = {cell.folder for run in runs for cell in run.cells}

    def line(cell: Cell) -> str:
        return f"#   {cell.folder}: {states[cell.folder]}"

    rest = [line(cell) for cell in sweep.cells if cell.folder not in todo]
    lines = ["# nothing to do:", *rest, ""] if rest else []
    for number, run in enumerate(runs, start=1):
        lines += [f"# run {number} of {len(runs)}: {run.title}", *map(line, run.cells), shell_line(run.args), ""]
    return "\n".join([*lines, f"# {summary(sweep)}"]) + "\n"


def summary(sweep: Sweep) -> str:
    """Such as ``12 cells: 3 finished, 9 new``."""
    counts = Counter(cell.state.kind for cell in sweep.cells)
    return f"{count(len(sweep.cells), 'cell')}: " + ", ".join(f"{number} {kind}" for kind, number in counts.items())


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min``, ``3 h 20 min`` or ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{round(seconds)} s"
    if minutes < 90:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def count(number: int, thing: str) -> str:
    """Such as ``1 cell`` and ``2 cells``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
