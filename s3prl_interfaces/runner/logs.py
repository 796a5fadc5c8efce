"""Where the package's log messages go: the terminal, and a run's log.txt."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOTS = ("s3prl_interfaces", "downstream_tasks")


def log_to_terminal(verbose: bool) -> None:
    """Show the package's messages on standard error, which leaves standard output to tables."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    # The root logger's handlers are those that tqdm keeps clear of its bars.
    logging.getLogger().handlers[:] = [handler]
    for name in ROOTS:
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)


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
    """Write the package's messages to ``path`` too, with times; an existing file is continued."""
    handler = logging.FileHandler(path, encoding="utf-8")
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
