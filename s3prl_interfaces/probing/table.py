"""The table of an upstream's probes, for the terminal, as Markdown and as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from s3prl_interfaces.probing.linear import Score
from s3prl_interfaces.probing.measure import Estimate, Result, accuracy, best_layer, difference

NOTES = (
    "Accuracy in %, on data that nothing was chosen on; ± is half of the 95 % interval over test utterances.",
    "Rows that begin with 'over': by how much the best trained layer is better, with the difference's interval.",
    "A probe is logistic regression on one layer. Its penalty, and the best layer (bold), are chosen on a held-out "
    "fifth of the training data's groups (speakers; for the speaker task, recording sessions).",
    "Random is the same network with random weights, mean over {draws} seed(s); its best layer is each seed's own.",
    "Chance is always answering the commonest class. Log-mel is 80 filterbanks: one frame, or their mean over time.",
)

BEST = "best layer"


@dataclass(frozen=True)
class Cell:
    """A text, and whether it is the best layer's."""

    text: str
    bold: bool = False


def rows(results: Sequence[Result]) -> tuple[list[str], list[list[Cell]]]:
    """Give the headings and the rows; two columns a task, one without random weights."""
    headings = ["layer"]
    for result in results:
        headings += [f"{result.task}, {kind}" for kind in (("trained", "random") if result.random else ("trained",))]
    layers = max(len(result.trained) for result in results)
    body = [_row(str(layer), [_layer(result, layer) for result in results]) for layer in range(layers)]
    body.append(_row(BEST, [_best(result) for result in results]))
    body.append(_row("which", [_first(result, f"layer {best_layer(result.trained)}") for result in results]))
    body.append(_row("log-mel", [_first(result, _plain(accuracy([result.log_mel]))) for result in results]))
    body.append(_row("chance", [_first(result, f"{100 * result.chance:.1f}") for result in results]))
    if any(result.random for result in results):
        body.append(_row("over random", [_first(result, _gain(result, result.best_random)) for result in results]))
    body.append(_row("over log-mel", [_first(result, _gain(result, [result.log_mel])) for result in results]))
    body.append(_row("examples", [_first(result, result.unit) for result in results]))
    body.append(_row("train", [_first(result, f"{result.train:,}") for result in results]))
    body.append(_row("test", [_first(result, f"{result.test:,}") for result in results]))
    body.append(_row("classes", [_first(result, str(result.classes)) for result in results]))
    return headings, body


def terminal(name: str, results: Sequence[Result]) -> Group:
    """Draw the table and its notes for ``rich``. Without spaces around ± three tasks fit into 80 characters."""
    headings, body = rows(results)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for index, heading in enumerate(headings):
        table.add_column(heading.replace(", ", "\n"), justify="right" if index else "left")
    for row in body:
        if row[0].text == BEST:
            table.add_section()
        table.add_row(*(Text(cell.text.replace(" ± ", "±"), style="bold" if cell.bold else "") for cell in row))
    return Group(Text(f"upstream: {name}", style="bold"), table, Text("\n".join(notes(results)), style="dim"), "")


def markdown(name: str, results: Sequence[Result]) -> str:
    """Write the table with its notes below."""
    headings, body = rows(results)
    lines = [_line(headings), _line(["---", *["---:"] * (len(headings) - 1)])]
    lines += [_line([f"**{cell.text}**" if cell.bold else cell.text for cell in row]) for row in body]
    return "\n".join([f"### upstream: {name}", "", *lines, "", *(f"- {note}" for note in notes(results))]) + "\n"


def record(name: str, results: Sequence[Result]) -> dict[str, Any]:
    """Give everything in the table, at full precision, as JSON takes it."""
    return {"upstream": name, "tasks": {result.task: _record(result) for result in results}}


def notes(results: Sequence[Result]) -> list[str]:
    """What the numbers are."""
    draws = max(len(result.random) for result in results)
    return [note.format(draws=draws) for note in NOTES if draws or "{draws}" not in note]


def _row(label: str, parts: Sequence[Sequence[Cell]]) -> list[Cell]:
    return [Cell(label), *(cell for part in parts for cell in part)]


def _layer(result: Result, layer: int) -> list[Cell]:
    if layer >= len(result.trained):
        return _first(result, "")
    cells = [Cell(_plain(accuracy([result.trained[layer]])), layer == best_layer(result.trained))]
    if result.random:
        cells.append(Cell(_percent(accuracy([scores[layer] for scores in result.random]))))
    return cells


def _best(result: Result) -> list[Cell]:
    cells = [Cell(_plain(accuracy([result.best])), bold=True)]
    if result.random:
        cells.append(Cell(_plain(accuracy(result.best_random)), bold=True))
    return cells


def _first(result: Result, text: str) -> list[Cell]:
    """Leave the column of random weights empty."""
    return [Cell(text), *([Cell("")] if result.random else [])]


def _gain(result: Result, others: Sequence[Score]) -> str:
    if not others:
        return ""
    gain = difference([result.best], others)
    return f"{100 * gain.value:+.1f} ± {100 * gain.half_width:.1f}"


def _plain(estimate: Estimate) -> str:
    return f"{_percent(estimate)} ± {100 * estimate.half_width:.1f}"


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _record(result: Result) -> dict[str, Any]:
    return {
        "unit": result.unit,
        "classes": result.classes,
        "train": result.train,
        "test": result.test,
        "chance": result.chance,
        "best_layer": best_layer(result.trained),
        "trained": [_score(score) for score in result.trained],
        "random": [[_score(score) for score in scores] for scores in result.random],
        "log_mel": _score(result.log_mel),
    }


def _score(score: Score) -> dict[str, float]:
    estimate = accuracy([score])
    return {
        "accuracy": estimate.value,
        "half_width_95": estimate.half_width,
        "held_out": score.held_out,
        "penalty": score.penalty,
    }
