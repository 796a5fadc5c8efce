"""A run as a process of its own, whose messages go to the terminal as they come and are kept for their last words."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from s3prl_interfaces.runner.interruption import SIGNALS

KEPT = 65536
"""Characters of a run's output in which its error is looked for."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    """The exit code; below 0: killed by that signal."""
    reason: str = ""
    """Its ``error:`` line, else its last one; empty where it ended well."""

    @property
    def stopped_by(self) -> int | None:
        """The signal that asked it to stop; None if it ended by itself."""
        for signum in SIGNALS:
            if self.code in (-signum, 128 + signum):
                return int(signum)
        return None


class Child:
    """A running run.

    It is given a session of its own, so that a signal reaches it once: a terminal's Ctrl-C would otherwise reach it
    beside the one that is passed on, and a run takes a second signal for impatience.

    Args:
        command: program and arguments.
        environment: what differs from this process's; None takes a variable away.
        cwd: where to run it.
        deaf_to: signals that it should ignore.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        deaf_to: Sequence[int] = (),
    ) -> None:
        # Progress bars ask for the terminal's size; behind a pipe they take it from here.
        columns, lines = _terminal_size()
        changed = {"COLUMNS": str(columns), "LINES": str(lines), **(environment or {})}
        everything = {**os.environ, **changed}
        self._tail = ""
        self._process = subprocess.Popen(  # noqa: S603 (our own command line)
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={key: value for key, value in everything.items() if value is not None},
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_ignore(deaf_to) if deaf_to else None,
        )
        self._reader = threading.Thread(target=self._copy, args=[self._process.stdout], daemon=True)
        self._reader.start()

    def tell(self, signum: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(signum)

    def wait(self) -> Outcome:
        """Wait for its end."""
        code = self._process.wait()
        self._reader.join(timeout=5)  # a worker that outlives it may hold the pipe open
        if re.split(r"[\r\n]", self._tail)[-1].strip():  # it died behind a progress bar
            _show("\n")
        return Outcome(code, "" if code == 0 else _last_words(self._tail, code))

    def wait_in_handler(self) -> None:
        """Wait for its end in a signal handler, which may have interrupted ``wait`` and must not take its lock."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)

    def _copy(self, pipe: IO[bytes]) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := os.read(pipe.fileno(), 65536):
            text = decoder.decode(chunk)
            self._tail = (self._tail + text)[-KEPT:]
            _show(text)


def _show(text: str) -> None:
    with contextlib.suppress(OSError):  # a terminal that was closed is no reason to stop
        sys.stderr.write(text)
        sys.stderr.flush()


def _terminal_size() -> os.terminal_size:
    try:
        return os.get_terminal_size(2)  # standard output may go into a file
    except OSError:
        return shutil.get_terminal_size()


def _ignore(signals: Sequence[int]) -> Callable[[], None]:
    def ignore() -> None:
        for signum in signals:
            signal.signal(signum, signal.SIG_IGN)

    return ignore


def _last_words(output: str, code: int) -> str:
    """The reason in the output of a run that failed."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)
    lines = [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[-1]
    if code < 0:
        memory = ", as systems do that run out of memory" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{memory}"
    return lines[-1] if lines else f"exit code {code}"
