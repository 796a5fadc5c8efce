"""The page: what was compared, the tables, the pictures, and what is missing."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from xml.etree.ElementTree import Element

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import display
from s3prl_interfaces.results.board import Leaderboard, Table
from s3prl_interfaces.results.layers import LAYERS_FILE, LayerResult, read_layers
from s3prl_interfaces.results.report.curves import Events, chosen_measure, read_events
from s3prl_interfaces.results.report.markup import append, element, to_html
from s3prl_interfaces.results.report.palette import css_variables
from s3prl_interfaces.results.report.pictures import (
    Picture,
    Seen,
    loss_pictures,
    lost_pictures,
    measure_pictures,
    weight_pictures,
)
from s3prl_interfaces.results.report.svg import inline_svg
from s3prl_interfaces.results.report.table import leaderboard_table, numbers_table, scroll_box
from s3prl_interfaces.results.runs import Run

PROGRAM = "s3prl-interfaces"
COLUMN_INCHES = 5.6
"""Wider figures span both columns of the page."""


@dataclass(frozen=True)
class Page:
    """What :func:`make_page` made."""

    html: str
    pictures: tuple[Picture, ...]
    """Every figure of the page; their names are unique and safe as names of files."""


class _Pictures:
    """Puts pictures on the page, each under a name of its own."""

    def __init__(self) -> None:
        self.shown: list[Picture] = []

    def show(self, upstream: str, pictures: Iterable[Picture]) -> Element:
        """Return a block of figures."""
        return element("div", *(self._figure(upstream, picture) for picture in pictures), class_="pictures")

    def _figure(self, upstream: str, picture: Picture) -> Element:
        taken = {shown.name for shown in self.shown}
        base = re.sub(r"[^a-z0-9_]+", "-", f"{upstream}-{picture.name}".lower()).strip("-")[:80] or "figure"
        name = next(name for name in _numbered(base) if name not in taken)
        self.shown.append(replace(picture, name=name))
        drawing = inline_svg(picture.figure, name, picture.title, picture.description)
        numbers = scroll_box(numbers_table(picture.numbers, picture.title), f"{name}--numbers")
        is_wide = picture.figure.get_figwidth() > COLUMN_INCHES
        return element(
            "figure",
            scroll_box(drawing, f"{name}--title") if picture.is_map else drawing,
            element("figcaption", picture.caption),
            element("details", element("summary", "The numbers", id=f"{name}--numbers"), numbers),
            class_=" ".join(["picture", *(["map"] if picture.is_map else []), *(["wide"] if is_wide else [])]),
        )


def make_page(board: Leaderboard) -> Page:
    """Draw what is known of the runs that a leaderboard counts.

    What is missing or cannot be read beside a result is said on the page. The same files give the same page, to the
    byte.
    """
    labels = dict.fromkeys(row.label for table in board.tables for row in table.rows)
    places = {label: place for place, label in enumerate(sorted(labels, key=lambda label: label != board.baseline))}
    pictures = _Pictures()
    sections = [
        _section(board, table, f"upstream-{number}", places, pictures) for number, table in enumerate(board.tables, 1)
    ]
    upstreams = _listed([table.upstream for table in board.tables])
    heading = f"Interfaces compared on {upstreams}"
    header = element(
        "header",
        element("h1", heading),
        element("p", _summary(board)),
        element("nav", element("ul", *map(_link, _anchors(board))), aria_label="On this page"),
    )
    style = css_variables() + files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("meta", name="color-scheme", content="light dark"),
            element("title", heading),
            element("style", style),
        ),
        element("body", header, element("main", *sections, _uncounted(board))),
        lang="en",
    )
    return Page(to_html(page), tuple(pictures.shown))


def _summary(board: Leaderboard) -> str:
    tasks = list(dict.fromkeys(column.task for table in board.tables for column in table.columns))
    rows = [row for table in board.tables for row in table.rows]
    interfaces = {row.label for row in rows}
    runs = {run.folder for row in rows for cell in row.cells if cell for run in cell.runs}
    return (
        "How the layers of a speech model are combined, and what that is worth: "
        f"{_count(len(interfaces), 'interface')} on {_count(len(tasks), 'task')} ({', '.join(tasks)}), "
        f"from {_count(len(runs), 'run')}."
    )


def _anchors(board: Leaderboard) -> list[tuple[str, str]]:
    anchors = []
    for number, table in enumerate(board.tables, 1):
        prefix = f"{table.upstream}: " if len(board.tables) > 1 else ""
        for part, title in (("table", "leaderboard"), ("curves", "learning curves"), ("layers", "layers")):
            anchors.append((f"upstream-{number}-{part}", prefix + title))
    return [*anchors, *([("uncounted", "runs that do not count")] if board.problems else [])]


def _link(anchor: tuple[str, str]) -> Element:
    name, text = anchor
    return element("li", element("a", text, href=f"#{name}"))


def _section(board: Leaderboard, table: Table, name: str, places: Mapping[str, int], pictures: _Pictures) -> Element:
    tasks = _seen(table)
    seen = [one for of_task, _ in tasks.values() for one in of_task]
    problems = [problem for _, of_task in tasks.values() for problem in of_task]
    days = sorted(day for one in seen if one.events for day in one.events.days)
    section = element(
        "section",
        element("h2", f"Upstream: {table.upstream}"),
        element("p", f"Trained from {days[0]} to {days[-1]} (UTC).", class_="quiet") if days else None,
        element("h3", "Leaderboard", id=f"{name}-table"),
        leaderboard_table(table, name),
        _list([*table.notes, *([display.superb_note(table)] if table.superb_tasks else [])]),
        element("ol", *(element("li", source) for source in display.sources(table))) if table.published else None,
        element("p", display.legend(board, mark="Underlined"), class_="quiet"),
        element("h3", "Learning curves", id=f"{name}-curves"),
    )
    for task, (runs, _) in tasks.items():
        drawn = [*measure_pictures(task, runs, places), *loss_pictures(task, runs, places)]
        if drawn:
            append(section, element("h4", task))
            append(section, pictures.show(table.upstream, drawn))
    append(section, _list([*_without_events(seen), *(text for kind, text in problems if kind == "events")]))
    append(section, element("h3", "What each interface looks at", id=f"{name}-layers"))
    for task, (runs, _) in tasks.items():
        drawn = [*lost_pictures(task, runs, places), *weight_pictures(task, runs, places)]
        if drawn:
            append(section, element("h4", task))
            append(section, pictures.show(table.upstream, drawn))
    append(section, _list([text for kind, text in problems if kind == "layers"]))
    append(section, _without_layers(seen))
    return section


def _seen(table: Table) -> dict[str, tuple[list[Seen], list[tuple[str, str]]]]:
    """Return, for each task's heading, the runs that count and what is wrong beside them."""
    tasks: dict[str, tuple[list[Seen], list[tuple[str, str]]]] = {}
    known: set[tuple[str, Path]] = set()
    for index, column in enumerate(table.columns):
        seen, problems = tasks.setdefault(column.heading, ([], []))
        for row in table.rows:
            cell = row.cells[index]
            for run in cell.runs if cell else ():
                # A task with two metrics has two columns of the same runs.
                if (column.heading, run.folder) not in known:
                    known.add((column.heading, run.folder))
                    seen.append(_look(row.label, run, problems))
    return tasks


def _look(label: str, run: Run, problems: list[tuple[str, str]]) -> Seen:
    events: Events | None = None
    layers: LayerResult | None = None
    try:
        events = read_events(run.folder)
    except ResultError as error:
        problems.append(("events", str(error)))
    if events is not None:
        problems += [("events", text) for text in _short_events(run, events)]
    try:
        layers = read_layers(run.folder)
    except ResultError as error:
        problems.append(("layers", str(error)))
    return Seen(label, run, events, layers)


def _short_events(run: Run, events: Events) -> list[str]:
    """Say that a curve ends before the weights that were scored: an event file was cut short or is missing."""
    measure = chosen_measure(run.result)
    curve = events.scalars.get(f"{measure.split}-{measure.metric}", {})
    step = run.result.metrics.get(measure.split, {}).get("step", 0)
    if not curve:
        return [f"{run.folder}: its events have no {measure.split} {measure.metric}, so its curve is not drawn."]
    if max(curve) < step:
        return [f"{run.folder}: its events end at step {max(curve):,}, before step {step:,.0f} that was scored."]
    return []


def _without_events(seen: Sequence[Seen]) -> list[str]:
    return [
        f"{one.run.folder}: there are no TensorBoard events that can be read, so its curves are not drawn."
        for one in seen
        if one.events is None
    ]


def _without_layers(seen: Sequence[Seen]) -> Element | None:
    folders = list(dict.fromkeys(one.run.folder for one in seen if not (one.run.folder / LAYERS_FILE).exists()))
    if not folders:
        return None
    return element(
        "div",
        element("p", f"{_count(len(folders), 'run')} of {len(seen)} without {LAYERS_FILE}. This command makes it:"),
        element("pre", element("code", _layers_command(folders)), tabindex="0"),
        class_="missing",
    )


def _layers_command(folders: Iterable[Path]) -> str:
    return f"{PROGRAM} layers {shlex.join(map(str, folders))}"


def _uncounted(board: Leaderboard) -> Element | None:
    if not board.problems:
        return None
    return element(
        "section",
        element("h2", "Runs that do not count", id="uncounted"),
        _list([f"{problem.folder}: {problem.text}" for problem in board.problems]),
    )


def _list(texts: Sequence[str]) -> Element | None:
    # The same file may be named by more than one task.
    return element("ul", *(element("li", text) for text in dict.fromkeys(texts)), class_="notes") if texts else None


def _numbered(base: str) -> Iterable[str]:
    yield base
    number = 2
    while True:
        yield f"{base}-{number}"
        number += 1


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
