"""A sweep's cells, and how those that are to be trained are put together into runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.sweep.spec import SweepSpec
from s3prl_interfaces.sweep.state import State, state_of

Point: TypeAlias = tuple[str | None, str | None, int, float | None]
"""Where a cell stands within its group: interface, ``normalize``, seed and learning rate; None: as the config says."""


@dataclass(frozen=True)
class Cell:
    """One interface with one seed and one learning rate, on one upstream and task, with one choice of values."""

    point: Point
    args: RunArguments
    """Of the run that would train this cell alone."""
    config: Mapping[str, Any]
    folder: Path

    @property
    def state(self) -> State:
        """What stands in its folder now."""
        return state_of(self.folder)


@dataclass(frozen=True)
class Group:
    """The cells that can share the upstream's pass: all but interface, seed and learning rate is the same."""

    title: str
    """Upstream, task, values and fold."""
    board: str
    """What tells it apart from groups that a leaderboard would take for the same: its values."""
    args: RunArguments
    cells: tuple[Cell, ...]

    def runs(self, todo: Sequence[Cell]) -> list[Run]:
        """As few runs as train the cells of ``todo`` and no other: a run trains a product of lanes."""
        if self.args.upstream_trainable:  # each lane would pull the upstream another way
            return [self._run([[part] for part in cell.point], [cell]) for cell in todo]
        by_point = {cell.point: cell for cell in todo}
        found = boxes([*by_point])
        return [self._run(box, [by_point[point] for point in product(*box)]) for box in found]

    def _run(self, box: Sequence[Sequence[Any]], cells: Sequence[Cell]) -> Run:
        interfaces, normalize, seeds, rates = box
        args = replace(
            self.args,
            interface=[name for name in interfaces if name is not None],
            normalize="both" if len(normalize) > 1 else normalize[0],
            seeds=list(seeds),
            lr=[rate for rate in rates if rate is not None],
        )
        if len(cells) == 1:  # where it would be as one lane of several: the sweep may grow
            args = within(args, cells[0].folder.name)
        return Run(self.title, args, tuple(cells))


@dataclass(frozen=True)
class Run:
    """One command: lanes that share the upstream's pass."""

    group: str
    args: RunArguments
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """Such as ``hubert, ic, weighted_sum hconv (2 interfaces x 3 seeds)``."""
        axes: dict[str, Sequence[Any]] = {
            "interface": self.args.interface or ["the config's interface"],
            "seed": self.args.seeds,
            "learning rate": self.args.lr,
        }
        counts = [
            f"{len(values)} {axis}{'s' if len(values) > 1 else ''}"
            for axis, values in axes.items()
            if values or axis != "learning rate"
        ]
        if self.args.normalize == "both":
            counts.append("with and without normalisation")
        return f"{self.group}, {' '.join(axes['interface'])} ({' x '.join(counts)})"

    @property
    def steps(self) -> int:
        """Updates that are left, of the lane that has the most."""
        return max(int(cell.config["runner"]["total_steps"]) - cell.state.step for cell in self.cells)


@dataclass(frozen=True)
class Sweep:
    """A sweep that was read and checked."""

    path: Path
    spec: SweepSpec
    groups: tuple[Group, ...]

    @property
    def folder(self) -> Path:
        """Everything that it leaves is below."""
        return self.spec.folder

    @property
    def cells(self) -> list[Cell]:
        """All of them, in the file's order."""
        return [cell for group in self.groups for cell in group.cells]

    def runs(self, *, rerun_failed: bool = False) -> list[Run]:
        """What is left to do."""
        wanted = {"unfinished", "new", *(["failed"] if rerun_failed else [])}
        return [run for group in self.groups for run in group.runs([c for c in group.cells if c.state.kind in wanted])]

    def boards(self) -> dict[str, list[Path]]:
        """The folders of each leaderboard that has something to show, by its heading.

        Results do not tell values apart, nor upstreams of one name: each choice has a leaderboard of its own.
        """
        found: dict[str, list[Path]] = defaultdict(list)
        for group in self.groups:
            if any(cell.state.kind == "finished" for cell in group.cells):
                found[group.board].append(group.args.folder)
        return dict(found)

    def failed(self) -> list[tuple[Cell, State]]:
        """The cells that have failed, now or earlier."""
        return [(cell, state) for cell in self.cells if (state := cell.state).kind == "failed"]


def boxes(points: Sequence[tuple[Any, ...]]) -> list[tuple[list[Any], ...]]:
    """Part a set of points into products ``A x B x ...`` that hold each of them once and no other.

    Points that differ in their first coordinate alone go into one product; few missing points make few products.
    """
    if not points[:1] or not points[0]:
        return [()] if points else []
    rest: dict[Any, list[tuple[Any, ...]]] = defaultdict(list)
    for first, *others in points:
        rest[first].append(tuple(others))
    alike: dict[frozenset[tuple[Any, ...]], list[Any]] = defaultdict(list)
    for first, others in rest.items():
        alike[frozenset(others)].append(first)
    return [(firsts, *box) for firsts in alike.values() for box in boxes(rest[firsts[0]])]


def within(args: RunArguments, *names: str) -> RunArguments:
    """A folder below that of ``args``, given as that one is."""
    if args.expdir is not None:
        return replace(args, expdir=str(Path(args.expdir, *names)))
    return replace(args, expname=Path(args.expname or "", *names).as_posix())
