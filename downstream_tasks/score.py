"""What a task's experts say about their score."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """The metric that compares runs of a task; an expert states it as its class attribute ``score``."""

    metric: str
    """Name under which the expert logs it."""
    split: str
    """The split it is reported on."""
    higher_is_better: bool
