"""Train what is not finished: run after run, each in a process of its own, or as jobs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.runner.interruption import Stopped
from s3prl_interfaces.sweep.cells import Run, Sweep
from s3prl_interfaces.sweep.child import Child
from s3prl_interfaces.sweep.command import process_of
from s3prl_interfaces.sweep.jobs import make_executor, run_as_jobs
from s3prl_interfaces.sweep.lock import locked
from s3prl_interfaces.sweep.outcome import forget_failures, note_outcome
from s3prl_interfaces.sweep.show import count, duration, summary
from s3prl_interfaces.sweep.signals import signals_noted

log = logging.getLogger(__name__)


def run_sweep(sweep: Sweep, rerun_failed: bool = False, cluster: str | None = None, at_once: int | None = None) -> None:
    """Train every cell that is not finished, and of those that have failed none unless that is asked for.

    Args:
        sweep: what to train.
        rerun_failed: failed ones too.
        cluster: submitit's, ``local`` or ``slurm``; None: one run after another, here.
        at_once: how many jobs are in the queue at the same time; None: one on this machine, all on a cluster.

    Raises:
        UserError: another sweep is at work here, or jobs cannot be submitted. Runs that fail are no error here, see
            :func:`refuse_failures`.
        Stopped: a signal asked for it.
    """
    if at_once is not None and (cluster is None or at_once < 1):
        raise ConfigError("`--at-once N` goes with `--submitit`, and N must be 1 or more.")
    runs = sweep.runs(rerun_failed=rerun_failed)
    log.info("%s; %s to do", summary(sweep), count(len(runs), "run"))
    if not runs:
        return
    executor = None if cluster is None else make_executor(cluster, sweep.folder, sweep.spec.submitit)
    with locked(sweep.folder):
        if executor is None:
            run_in_turn(runs)
        else:
            run_as_jobs(runs, executor, at_once)


def refuse_failures(sweep: Sweep) -> None:
    """List the cells that have failed, now or earlier.

    Raises:
        UserError: there are some.
    """
    failed = sweep.failed()
    for cell, state in failed:
        log.error("failed at step %d: %s: %s", state.step, cell.folder, state.reason)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(sweep.cells)} cells failed: mend what is said above, then try them again with "
            "`--rerun-failed`."
        )


def run_in_turn(runs: Sequence[Run]) -> None:
    """Train the cells of ``runs``, one run after another; a run that fails is noted in its cells' folders.

    Raises:
        Stopped: a signal asked this process or a run to stop.
    """
    spent = done = 0.0
    steps = [run.steps for run in runs]
    with signals_noted() as signals:
        for number, run in enumerate(runs, start=1):
            log.info("run %d of %d: %s", number, len(runs), run.title)
            forget_failures(run)
            begin = time.monotonic()
            child = Child(process_of(run.args))
            signals.pass_on_to(child)
            outcome = child.wait()
            signals.child = None
            stopped = signals.received or outcome.stopped_by
            if stopped:
                raise Stopped(stopped)
            note_outcome(run, outcome)
            if outcome.code == 0:
                spent, done = spent + time.monotonic() - begin, done + steps[number - 1]
            if done and number < len(runs):
                left = spent / done * sum(steps[number:])
                log.info("about %s left for %d more, if an update takes as long", duration(left), len(runs) - number)
