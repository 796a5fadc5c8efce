"""Signals that ask a run to stop: it finishes its update and writes a checkpoint first."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s3prl_interfaces.runner import distributed

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C; what SLURM sends before it takes a job's machine away; what ``sbatch --signal`` is usually told to send."""

_received: int | None = None


class Stopped(Exception):  # noqa: N818 (nothing is wrong)
    """A signal asked for it, and what was there to save is saved.

    Args:
        signum: which signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"Stopped by {signal.Signals(signum).name}; what was done is saved.")
        self.signum = signum


@contextmanager
def heeded() -> Iterator[None]:
    """Inside, the first of these signals is noted and does nothing else; a second one does what it does elsewhere.

    Not so in one of several processes: torchrun passes on what they may have got already, and kills them after 30 s.

    In a thread that is not the main one, Python lets nobody handle signals, and they do what they do elsewhere.
    """
    global _received
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}

    def note(signum: int, _frame: object) -> None:
        global _received
        # A loader's workers inherit this, and a terminal or SLURM signals the whole group: they must live until the
        # update is done. They end with the process that made them.
        _received = signum
        if os.getpid() == process and distributed.world_size() > 1:
            return
        for one, handler in before.items():
            signal.signal(one, signal.SIG_DFL if os.getpid() != process else handler)

    _received = None
    for signum in SIGNALS:
        signal.signal(signum, note)
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        _received = None


def stop_if_requested(together: bool = False) -> None:
    """Call this wherever nothing would be lost.

    Args:
        together: of several processes every one is here, and a signal to one stops all. Elsewhere only a process that
            is alone may stop.

    Raises:
        Stopped: a signal asked for it.
    """
    signum = _received or 0
    if together:
        signum = distributed.largest(signum)
    elif distributed.world_size() > 1:
        return
    if signum:
        raise Stopped(signum)
