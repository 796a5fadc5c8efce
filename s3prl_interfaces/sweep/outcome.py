"""What a run's end means for its cells."""

from __future__ import annotations

import logging

from s3prl_interfaces.results.problems import FAILED_FILE, write_failure
from s3prl_interfaces.sweep.cells import Run
from s3prl_interfaces.sweep.child import Outcome

log = logging.getLogger(__name__)


def forget_failures(run: Run) -> None:
    """What is noted afterwards should be of this attempt."""
    for cell in run.cells:
        (cell.folder / FAILED_FILE).unlink(missing_ok=True)


def note_outcome(run: Run, outcome: Outcome) -> None:
    """Note in the folders of cells that are not finished why; what a lane has noted itself stays."""
    for cell in run.cells:
        state = cell.state
        if state.kind in ("unfinished", "new"):
            cell.folder.mkdir(parents=True, exist_ok=True)  # of a run that did not get that far
            write_failure(cell.folder, state.step, outcome.reason or "the run ended, but left no results.json")
    if outcome.code != 0:
        log.error("failed: %s: %s", run.title, outcome.reason)
