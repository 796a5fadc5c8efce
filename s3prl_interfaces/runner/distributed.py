"""Several processes, one GPU each. torchrun starts them; here they find each other, share the batches and agree.

Each function means something for a process that is alone, too, so that callers need not ask.
"""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, Sampler

from s3prl_interfaces.errors import ConfigError

T = TypeVar("T")

PATIENCE = timedelta(hours=6)
"""How long one process waits for another, which may be preparing a corpus. torchrun ends all when one has died."""

_RECENT: deque[dist.Work] = deque(maxlen=16)
"""The last collectives. Who lets go of one last lets go of its tensors, too. If that is gloo's thread, it takes
Python's lock for it, at any moment: of a fork, which may then hang (seen with Python 3.10), or of Python's end, which
may abort. So they are kept until gloo's thread has surely let go."""


@contextmanager
def joined(backend: str, local_rank: int | None, gpu: bool) -> Iterator[None]:
    """Inside, the processes that torchrun started know of each other; a process alone, or one that does, stays so.

    Args:
        backend: S3PRL's ``--backend``: what GPUs talk with. On the CPU it is gloo, whatever is said here.
        local_rank: S3PRL's ``--local_rank``: given by older launchers, which tell it by the environment too.
        gpu: whether the models will be on GPUs.

    Raises:
        ConfigError: ``--local_rank`` without a launcher, or there is no such backend.
    """
    if local_rank is not None and "WORLD_SIZE" not in os.environ:
        raise ConfigError("`--local_rank` comes from a launcher: start the run with `torchrun --nproc_per_node N ...`.")
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if gpu:
        torch.cuda.set_device(local_place())
    try:
        dist.init_process_group(f"cpu:gloo,cuda:{backend}" if gpu else "gloo", timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"The processes do not find each other with `--backend {backend}`: {error}") from error
    try:
        yield
        wait()  # for what the first one writes: torchrun would end it if another failed after its work
    finally:
        dist.destroy_process_group()


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes and shows progress."""
    return rank() == 0


def local_place() -> int:
    """Which of its machine's processes this is, from 0: the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def first_goes_ahead() -> Iterator[None]:
    """Inside, the first process works while the others wait; then they do: they find what it downloaded or indexed."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def wait() -> None:
    """Go on when every process is here."""
    if dist.is_initialized():
        total(0)


def total(number: int) -> int:
    """The sum of every process's number."""
    return _reduced(number, dist.ReduceOp.SUM) if dist.is_initialized() else number


def largest(number: int) -> int:
    """The largest of every process's number."""
    return _reduced(number, dist.ReduceOp.MAX) if dist.is_initialized() else number


def _reduced(number: int, operation: Any) -> int:
    held = torch.tensor(number)  # on the CPU: a GPU need not be waited for
    _finish(dist.all_reduce(held, operation, async_op=True))
    return int(held)


def _finish(collective: dist.Work) -> None:
    collective.wait()
    _RECENT.append(collective)


def from_first(value: T) -> T:
    """The first process's value."""
    if not dist.is_initialized():
        return value
    content = _packed(value) if is_first() else torch.empty(0, dtype=torch.uint8)
    size = torch.tensor(len(content))
    _finish(dist.broadcast(size, 0, async_op=True))
    content = content if is_first() else torch.empty(int(size), dtype=torch.uint8)
    _finish(dist.broadcast(content, 0, async_op=True))
    return value if is_first() else _unpacked(content)


def gathered(value: T) -> list[T]:
    """Every process's value, for the first one; tensors are on the CPU. The others get nothing."""
    if not dist.is_initialized():
        return [value]
    content = _packed(on_cpu(value))
    sizes = [torch.tensor(0) for _ in range(world_size())]
    _finish(dist.all_gather(sizes, torch.tensor(len(content)), async_op=True))
    most = max(map(int, sizes))
    parts = [torch.empty(most, dtype=torch.uint8) for _ in sizes] if is_first() else None
    _finish(dist.gather(nn.functional.pad(content, (0, most - len(content))), parts, async_op=True))
    return [_unpacked(part[: int(size)]) for part, size in zip(parts or [], sizes, strict=False)]


def _packed(value: Any) -> Tensor:
    """What the processes of one run tell each other, as bytes; PyTorch's own functions do the same."""
    return torch.frombuffer(bytearray(pickle.dumps(value)), dtype=torch.uint8)


def _unpacked(content: Tensor) -> Any:
    return pickle.loads(content.numpy().tobytes())  # noqa: S301 (of another process of this run)


def own(values: Any) -> Any:
    """This process's of what :func:`gathered` gave; None for one that was not there then."""
    if isinstance(values, list):
        return values[rank()] if rank() < len(values) else None
    return values if is_first() else None  # of a checkpoint of before there were several processes


def on_cpu(value: Any) -> Any:
    """Lists, tuples and mappings with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: on_cpu(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(on_cpu(entry) for entry in value)
    return value


class MeanGradients:
    """Replaces the gradients of every process by their mean, with PyTorch's ``DistributedDataParallel``.

    That class reduces what has gathered in ``.grad`` during the first backward pass after its own forward. The pass
    here adds zeros to everything, so that it comes once an update, whatever each process did before: several
    micro-batches, one in smaller parts, or none at the end of an epoch.

    Args:
        parameters: all that are trained; those of the first process become everybody's.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._model = DistributedDataParallel(_Zero(parameters))

    def reduce(self) -> None:
        """Call it in every process."""
        self._model().backward()


class _Zero(nn.Module):
    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.trained = nn.ParameterList(parameter for parameter in parameters if parameter.requires_grad)

    def forward(self) -> Tensor:
        return torch.stack([0 * parameter.sum() for parameter in self.trained]).sum()


def share(loader: Any, begin: int) -> tuple[Any, int]:
    """This process's part of a loader's batches from number ``begin`` on, counted over all processes.

    Returns:
        A loader, and how many of its first batches are to be left out.

    Raises:
        ConfigError: the loader is not one whose batches can be shared out.
    """
    if not isinstance(loader, DataLoader) or loader.batch_sampler is None:
        raise ConfigError(
            "The task's loader is not a DataLoader that makes batches of items, so several processes cannot share it: "
            "run it in one process."
        )
    if _shares_itself(loader):
        return loader, begin // world_size()
    mine = DataLoader(
        loader.dataset,
        batch_sampler=_Share(loader.batch_sampler, begin + rank(), world_size()),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
    )
    return mine, 0


def deal(loader: Any) -> None:
    """Let a loader of :func:`share` that was started draw the order of its batches now."""
    if isinstance(loader.batch_sampler, _Share):
        loader.batch_sampler.deal()


def batches_of(loader: Any) -> int:
    """How many batches a loader has in all processes together."""
    return len(loader) * (world_size() if _shares_itself(loader) else 1)


def _shares_itself(loader: Any) -> bool:
    """S3PRL's experts use a DistributedSampler where several processes train."""
    return isinstance(getattr(loader, "sampler", None), DistributedSampler)


class _Share(Sampler[list[int]]):
    """Every ``step``-th batch of a sampler, from number ``begin`` on.

    They are dealt when the first one is asked for, or by :meth:`deal`: as late as a loader of one process does it, so
    that the same random numbers give the same order.
    """

    def __init__(self, batches: Sampler[Any] | Iterable[Any], begin: int, step: int) -> None:
        self.batches = batches
        self.begin = begin
        self.step = step
        self._dealt: list[Any] | None = None

    def deal(self) -> None:
        """Draw what the order takes of random numbers."""
        if self._dealt is None:
            self._dealt = list(islice(self.batches, self.begin, None, self.step))

    def __len__(self) -> int:
        everything: Sequence[Any] = self.batches  # type: ignore[assignment]
        return len(range(self.begin, len(everything), self.step))

    def __iter__(self) -> Iterator[Any]:
        self.deal()
        yield from self._dealt or ()
