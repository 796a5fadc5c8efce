"""Where the package's log messages go: the terminal, and a run's log.txt."""

import contextlib
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3prl_interfaces.errors import DataError

ROOTS = ("s3prl_interfaces", "downstream_tasks")


def log_to_terminal(verbose: bool) -> None:
    """Show the package's messages on standard error, which leaves standard output to tables."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # The root logger's handlers are those that tqdm keeps clear of its bars.
    logging.getLogger().handlers[:] = [handler]
    for name in ROOTS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    threading.excepthook = _tell


def _tell(raised: threading.ExceptHookArgs) -> None:
    """In one line, what ended a thread, such as TensorBoard's, instead of a traceback."""
    error = raised.exc_value
    logger = logging.getLogger(ROOTS[0])
    logger.warning("A thread ended with %s: %s", type(error).__name__, error)
    logger.debug("", exc_info=error)


class _LogFile(logging.FileHandler):
    """A message that cannot be written, as the disk is full, is not worth a run, nor a traceback for each."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        if not self._told:
            self._told = True
            sys.stderr.write(f"{self.baseFilename} cannot be written, it lacks messages: {sys.exc_info()[1]}\n")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextmanager
def warnings_only(wanted: bool) -> Iterator[None]:
    """Inside, if that is wanted, messages of the usual course of things are left out."""
    loggers = [logging.getLogger(name) for name in ROOTS]
    levels = [logger.level for logger in loggers]
    for logger in loggers if wanted else ():
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write the package's messages to ``path`` too, with times; an existing file is continued.

    Raises:
        DataError: it cannot be opened.
    """
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}.") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ROOTS]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
