"""Settings for the whole suite."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

# No test may reach for the network; a failed look-up would only be slow.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# For the processes that tests start; for this one see below.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """One thread: the tensors of tests are small, and threads that wait for each other cost more than they save."""
    torch.set_num_threads(1)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """The command line sets up logging for a process of its own."""
    loggers = [logging.getLogger(name) for name in (None, "s3prl_interfaces", "downstream_tasks")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    hook = threading.excepthook
    yield
    threading.excepthook = hook
    for logger, (handlers, level) in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers
        logger.setLevel(level)


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small random model of transformers, by family; written once."""
    place = tmp_path_factory.mktemp("transformers")

    def folder(family: str) -> Path:
        if not (place / family).exists():
            from tests.transformers_models import write

            write(family, place / family)
        return place / family

    return folder
