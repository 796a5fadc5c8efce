"""What a leaderboard holds: one table for each upstream, interface x task."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from s3prl_interfaces.results.problems import Problem
from s3prl_interfaces.results.runs import Run
from s3prl_interfaces.results.significance import Comparison

SHOWN_AS_PERCENT = frozenset({"acc", "balanced_acc", "per", "EER", "slot_type_f1", "slot_value_cer"})
"""Metrics that tasks report as a fraction and that people read as a percentage."""

SIGNIFICANT = 0.05
"""Differences of a lower corrected p-value are marked."""

Unit = tuple[Run, ...]
"""The runs of one seed: one of each fold, or a single one. Its score is their mean."""


@dataclass(frozen=True)
class Column:
    """One task, measured by one metric on one split."""

    task: str
    split: str
    metric: str
    higher_is_better: bool
    is_primary: bool
    """False for a second metric of the task, which SUPERB reports beside the first."""
    protocol: Mapping[str, Any]
    """The task's named options that were used. Unlike ones measure unlike things: they are columns of their own."""
    folds: tuple[str, ...]
    """Of a cross-validated task: those that every score of the column is the mean of."""
    heading: str
    """The task, and of its protocol what differs from another column of the table."""
    decimals: int
    """Digits after the point when shown; values that are equal when shown are ties."""

    @property
    def scale(self) -> int:
        """What a value is multiplied by when shown to a person."""
        return 100 if self.metric in SHOWN_AS_PERCENT else 1

    def rounded(self, value: float) -> float:
        """Return ``value`` as a person will see it."""
        return round(value * self.scale, self.decimals)


@dataclass(frozen=True)
class Cell:
    """The runs of one interface for one column, over their seeds. Values are in the unit of the metric."""

    mean: float
    std: float | None
    """Sample standard deviation over seeds, ``None`` for a single seed."""
    units: tuple[Unit, ...]
    """The runs that count, of each seed."""
    rates_tried: tuple[float | None, ...]
    """Learning rates that there are runs of; those of one of them count."""
    difference: float | None
    """``mean`` minus the mean of the baseline; ``None`` for the baseline itself and where it is missing."""
    is_best: bool
    """Nothing in the column is better, at the precision shown. Never true where there is nothing to beat."""
    comparison: Comparison | None = None
    """The difference tested over utterances; ``None`` where it was not."""
    p_corrected: float | None = None
    """The p-value after Holm's correction for the differences of the column."""

    @property
    def runs(self) -> Iterator[Run]:
        """The runs that count."""
        return (run for unit in self.units for run in unit)

    @property
    def seeds(self) -> tuple[int, ...]:
        """One of each unit."""
        return tuple(unit[0].result.seed for unit in self.units)

    @property
    def data_seeds(self) -> tuple[int | None, ...]:
        """One of each unit."""
        return tuple(unit[0].result.data_seed for unit in self.units)

    @property
    def learning_rate(self) -> float | None:
        """Of the runs that count, ``None`` if they do not tell."""
        return self.units[0][0].result.learning_rate

    @property
    def parameters(self) -> tuple[int, ...]:
        """Trained parameters of the interface; more than one number only if the runs disagree."""
        return tuple(sorted({run.result.parameters["interface"] for run in self.runs}))

    @property
    def macs_per_second(self) -> tuple[int, ...]:
        """Multiply-accumulate operations of the interface for a second of audio; empty if the runs do not tell."""
        return tuple(sorted({macs for run in self.runs if (macs := run.result.macs_per_second) is not None}))

    @property
    def configs(self) -> tuple[str, ...]:
        """The ``config_sha256`` of the runs."""
        return tuple(sorted({run.result.config_sha256 for run in self.runs}))

    @property
    def is_significant(self) -> bool:
        """The difference to the baseline is more than the choice of utterances explains."""
        return self.p_corrected is not None and self.p_corrected < SIGNIFICANT


@dataclass(frozen=True)
class Row:
    """One interface with one set of options."""

    label: str
    interface: str
    options: Mapping[str, Any]
    cells: tuple[Cell | None, ...]
    """One for each column of the table, ``None`` where there is no result."""
    superb_s: float | None = None
    """SUPERB's overall score over the table's ``superb_tasks``."""
    is_best_overall: bool = False
    """No ``superb_s`` of the table is better, at the precision shown."""

    @property
    def parameters(self) -> tuple[int, ...]:
        """Trained parameters of the interface; more than one number only if the runs disagree."""
        return tuple(sorted({count for cell in self.cells if cell for count in cell.parameters}))

    @property
    def macs_per_second(self) -> tuple[int, ...]:
        """Multiply-accumulate operations of the interface for a second of audio; empty if the runs do not tell."""
        return tuple(sorted({count for cell in self.cells if cell for count in cell.macs_per_second}))


@dataclass(frozen=True)
class PublishedRow:
    """Figures that somebody published, to be looked at beside the measured ones."""

    label: str
    """The interface, or the system where there is none to name."""
    upstream: str
    source: str
    values: tuple[float | None, ...]
    """One for each column of the table, as published (accuracies and error rates in percent)."""


@dataclass(frozen=True)
class Table:
    """All interfaces and tasks of one upstream."""

    upstream: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    """The baseline first, then by label."""
    notes: tuple[str, ...]
    """What a reader must know before comparing rows."""
    superb_tasks: tuple[str, ...] = ()
    """The tasks that ``superb_s`` is over, empty if there is none."""
    published: tuple[PublishedRow, ...] = ()
    """Never compared with ``rows``."""


@dataclass(frozen=True)
class Leaderboard:
    """One table for each upstream."""

    baseline: str
    tables: tuple[Table, ...]
    problems: tuple[Problem, ...] = ()
    """Runs that do not count."""
