"""Settings for the whole suite."""

import os

import torch

# No test may reach for the network; a failed look-up would only be slow.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# For the processes that tests start; for this one see below.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure() -> None:
    """One thread: the tensors of tests are small, and threads that wait for each other cost more than they save."""
    torch.set_num_threads(1)
