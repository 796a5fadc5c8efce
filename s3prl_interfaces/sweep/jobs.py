"""Runs as jobs of submitit: on this machine, or on a SLURM cluster, where a job that is cut short is queued again."""

from __future__ import annotations

import logging
import os
import signal
import time
import types
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.runner.interruption import Stopped
from s3prl_interfaces.sweep.cells import Run
from s3prl_interfaces.sweep.child import Child, Outcome
from s3prl_interfaces.sweep.command import process_of
from s3prl_interfaces.sweep.outcome import forget_failures, note_outcome
from s3prl_interfaces.sweep.signals import signals_noted

if TYPE_CHECKING:
    from submitit import AutoExecutor
    from submitit import Job as SubmittedJob
    from submitit.helpers import DelayedSubmission

log = logging.getLogger(__name__)

CLUSTERS = ("local", "slurm")
DEFAULTS: Mapping[str, Mapping[str, Any]] = {"local": {"timeout_min": 60 * 24 * 365}, "slurm": {"timeout_min": 60 * 24}}
"""submitit's own limits are 2 and 5 minutes."""
MOST_TIMEOUTS = 100
"""A job that reaches its time limit goes on as a new one this many times."""
POLL_SECONDS = {"local": 0.5, "slurm": 5.0}
PATIENCE = 120
"""Seconds for which a job whose run was stopped from outside waits to be queued again."""


class Job:
    """A run as submitit calls it; picklable as long as it does not run.

    Args:
        command: program and arguments.
        environment: as for :class:`~s3prl_interfaces.sweep.child.Child`.
        cwd: where to run it.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str | None], cwd: Path) -> None:
        self.command, self.environment, self.cwd = list(command), dict(environment), cwd
        self._child: Child | None = None
        self._told = False

    def __call__(self) -> Outcome:
        """Run it to its end."""
        from submitit.core.job_environment import JobEnvironment

        # SLURM gives its warning to every process of a job: a run would die of this one.
        warning = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        is_local = os.environ.get("SUBMITIT_EXECUTOR") == "local"

        def terminate(_signum: int, _frame: types.FrameType | None) -> None:
            # SLURM gives this one to every process too. It must reach the run once: a second one would kill it.
            if is_local and not self._told and self._child is not None:
                self._child.tell(signal.SIGTERM)
            self._told = True

        signal.signal(signal.SIGTERM, terminate)
        self._child = Child(self.command, self.environment, self.cwd, deaf_to=[warning])
        if self._told and is_local:
            self._child.tell(signal.SIGTERM)
        outcome = self._child.wait()
        if outcome.stopped_by is not None and not is_local:
            time.sleep(PATIENCE)  # to return would mean that the job is done
        return outcome

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls when the job is pre-empted or its time is up: the run saves, and goes on as a new job."""
        from submitit.helpers import DelayedSubmission

        if self._child is not None:
            if not self._told:
                self._told = True
                self._child.tell(signal.SIGTERM)
            self._child.wait_in_handler()
        return DelayedSubmission(Job(self.command, self.environment, self.cwd))


def run_as_jobs(runs: Sequence[Run], executor: AutoExecutor, at_once: int | None = None) -> None:
    """Submit every run as a job and wait for all of them; failures are noted as by ``run_in_turn``.

    Args:
        runs: what to do.
        executor: as :func:`make_executor` makes it.
        at_once: how many jobs are in the queue at the same time; None: one on this machine, all on a cluster.

    Raises:
        UserError: a job cannot be submitted.
        Stopped: a signal asked this process or a job to stop; the others were stopped, too.
    """
    cluster = executor.cluster
    environment: dict[str, str | None] = {}
    if cluster == "local" and not executor.parameters.get("gpus_per_node"):
        # submitit hides all GPUs where none are asked for.
        environment = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES")}
    limit = at_once or (1 if cluster == "local" else len(runs))
    waiting = list(enumerate(runs, start=1))
    active: dict[int, tuple[Run, SubmittedJob[Outcome]]] = {}
    stopped: int | None = None
    ended = 0
    with signals_noted() as signals:
        while waiting or active:
            if signals.received or stopped:
                _stop(cluster, [job for _, job in active.values()])
                raise Stopped(signals.received or stopped or signal.SIGTERM)
            while waiting and len(active) < limit:
                number, run = waiting.pop(0)
                forget_failures(run)
                job = _submit(executor, Job(process_of(run.args), environment, Path.cwd()))
                active[number] = run, job
                log.info("run %d of %d is job %s: %s", number, len(runs), job.job_id, run.title)
            time.sleep(POLL_SECONDS[cluster])
            for index, (run, job) in list(active.items()):
                if job.done():
                    del active[index]
                    outcome = _result(job)
                    stopped = stopped or outcome.stopped_by
                    if outcome.stopped_by is None:
                        ended += 1
                        note_outcome(run, outcome)
                        log.info("%d of %d ended: run %d, job %s", ended, len(runs), index, job.job_id)
        if stopped:
            raise Stopped(stopped)


def make_executor(cluster: str, folder: Path, parameters: Mapping[str, Any]) -> AutoExecutor:
    """Make submitit's executor.

    Raises:
        UserError: submitit or SLURM is not there.
        ConfigError: a parameter is none of submitit's, or of another type.
    """
    try:
        import submitit
    except ImportError as error:
        raise UserError("submitit is not installed: pip install 's3prl-interfaces[sweep]'") from error
    limits = {"slurm_max_num_timeout": MOST_TIMEOUTS, "local_max_num_timeout": MOST_TIMEOUTS}
    try:
        executor = submitit.AutoExecutor(folder / "submitit", cluster=cluster, **limits)
    except RuntimeError as error:
        raise UserError(f"--submitit {cluster}: {error}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            executor.update_parameters(**{"name": folder.name, **DEFAULTS[cluster], **parameters})
    except (NameError, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"`submitit`: {' '.join(str(error).split())}") from error
    return executor


def _submit(executor: AutoExecutor, job: Job) -> SubmittedJob[Outcome]:
    # A job on this machine inherits it: Ctrl-C is for the sweep, which then stops its jobs in their own way.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return executor.submit(job)
    except Exception as error:
        raise UserError(f"The job cannot be submitted: {' '.join(str(error).split())}") from error
    finally:
        signal.signal(signal.SIGINT, before)


def _result(job: SubmittedJob[Outcome]) -> Outcome:
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        return job.result()
    except (FailedJobError, UncompletedJobError) as error:
        last = str(error).strip().splitlines()[-1:]
        return Outcome(1, f"job {job.job_id} ended without a result, see {job.paths.stderr} ({''.join(last)})")


def _stop(cluster: str, jobs: Sequence[SubmittedJob[Outcome]]) -> None:
    """Let jobs write their checkpoints and end."""
    for job in jobs:
        if cluster == "local":
            os.kill(int(job.job_id), signal.SIGTERM)  # it passes that on; `cancel` would kill the run
        else:
            job.cancel(check=False)
    while cluster == "local" and not all(job.done() for job in jobs):
        time.sleep(POLL_SECONDS[cluster])
