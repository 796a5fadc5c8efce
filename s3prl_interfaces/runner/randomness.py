"""Every random state of a process: seed, capture, restore."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> dict[str, Any]:
    """All random states as plain numbers and tensors, so that ``torch.load(weights_only=True)`` reads them back."""
    name, keys, position, has_gauss, cached = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())
    return {
        "python": random.getstate(),
        "numpy": (
            name,
            torch.from_numpy(keys.astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(state: Mapping[str, Any]) -> None:
    """Put back what :func:`capture` took. CUDA states of a machine with other GPUs are left out."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class Stream:
    """Random states beside those of the process: what is drawn inside :meth:`use` leaves the latter as they were.

    Args:
        state: what :func:`capture` took.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state = state

    @contextmanager
    def use(self) -> Iterator[None]:
        """Draw from this stream; it goes on where it was left."""
        outer = capture()
        restore(self.state)
        try:
            yield
        finally:
            self.state = capture()
            restore(outer)


@contextmanager
def preserved(seed: int | None = None) -> Iterator[None]:
    """Leave every random state as it was; inside, start from ``seed`` if one is given."""
    state = capture()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        restore(state)
