"""Signals that ask a sweep to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s3prl_interfaces.runner.interruption import SIGNALS
from s3prl_interfaces.sweep.child import Child


class Signals:
    """The last signal that asked a sweep to stop; it is passed on to the run that goes on meanwhile."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.child: Child | None = None

    def pass_on_to(self, child: Child) -> None:
        """From now on; what came while it was being started, too."""
        self.child = child
        if self.received is not None:
            child.tell(self.received)

    def handle(self, signum: int, _frame: object) -> None:
        """As a handler of signals."""
        self.received = signal.SIGTERM if signum == signal.SIGHUP else signum
        if self.child is not None:
            self.child.tell(self.received)


@contextmanager
def signals_noted() -> Iterator[Signals]:
    """Inside, signals that ask to stop are noted and passed on, and do nothing else."""
    noted = Signals()
    # With `nohup` a closed terminal is no reason to stop. Python lets only the main thread handle signals.
    wanted = [s for s in (*SIGNALS, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread():
        wanted = []
    before = {signum: signal.signal(signum, noted.handle) for signum in wanted}
    try:
        yield noted
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
