"""A split's batches, as S3PRL's task heads hand them out."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from downstream_tasks.audio import RandomPiece
from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.runner import distributed, randomness
from s3prl_interfaces.runner.interruption import stop_if_requested
from s3prl_interfaces.runner.progress import progress_bar

log = logging.getLogger(__name__)

DEATHS = 3
"""How many times in a row a loader's workers may die before they have read a batch."""


def split_loader(head: Any, split: str, epoch: int | None = None) -> Any:
    """A task head's loader of a split: each batch is ``(wavs, *others)``.

    S3PRL's experts may or may not take ``epoch``, and answer an unknown split in different ways.

    Raises:
        ConfigError: the task has no such split, the split has no utterance, or a loader cannot have such options.
    """
    takes_epoch = epoch is not None and "epoch" in inspect.signature(head.get_dataloader).parameters
    try:
        loader = head.get_dataloader(split, epoch=epoch) if takes_epoch else head.get_dataloader(split)
    except (AttributeError, KeyError) as error:
        raise ConfigError(f"The task has no split `{split}` ({type(error).__name__}: {error}).") from error
    except ValueError as error:  # PyTorch's, of a batch size or a number of workers that cannot be
        raise ConfigError(f"Split `{split}` cannot be loaded: {error}") from error
    if loader is None or len(loader) == 0:
        raise ConfigError(f"Split `{split}` is unknown to the task, or has no utterances.")
    return loader


class Batches:
    """One pass over a split: its batches ``(wavs, *others)``; of some, perhaps, no utterance could be read.

    When a worker process dies, the loader is made anew and goes on where it was.

    Args:
        head: the task's.
        split: a name the head knows.
        epoch: for heads that ask for it.
        done: how many batches to begin after. They are read again, for S3PRL's loaders cannot start in the middle.
        random: random states to go on with after those.
        shared: each of several processes gets other batches: the first one the first, the second one the second, ...

    Raises:
        ConfigError: as :func:`split_loader`.
    """

    def __init__(
        self,
        head: Any,
        split: str,
        epoch: int | None = None,
        *,
        done: int = 0,
        random: Mapping[str, Any] | None = None,
        shared: bool = False,
    ) -> None:
        self._head, self._split, self._epoch = head, split, epoch
        self._done, self._random = done, random
        self._shared = shared and distributed.world_size() > 1
        self._begin = randomness.capture()
        self._loader = split_loader(head, split, epoch)

    def __len__(self) -> int:
        """How many batches the whole pass has, of all processes and with those that are done."""
        return distributed.batches_of(self._loader) if self._shared else len(self._loader)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Read them.

        Raises:
            UserError: a file cannot be read, or worker processes die again and again.
            Stopped: while batches that are done are read again.
        """
        read = deaths = 0
        random = self._random
        while True:
            try:
                for batch in self._open(read, random):
                    read, deaths = read + 1, 0
                    yield batch
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                if not (getattr(self._loader, "num_workers", 0) and _is_death(error)):
                    raise
                deaths += 1
                reason = " ".join(str(error).split())
            if deaths == DEATHS:
                raise UserError(
                    f"{self._split}: worker processes of the loader died {DEATHS} times in a row ({reason}). Each "
                    "needs memory of its own: set a smaller `num_workers` in the task's config."
                )
            log.warning("%s: a worker process of the loader died, it is started again (%s).", self._split, reason)
            random = randomness.capture()
            randomness.restore(self._begin)
            self._loader = split_loader(self._head, self._split, self._epoch)

    def _open(self, read: int, random: Mapping[str, Any] | None) -> Iterator[tuple[Any, ...]]:
        """What comes after the batches that are done and the ``read`` ones that were read."""
        loader, skip = self._loader, self._done + read
        if self._shared:
            loader, skip = distributed.share(loader, self._done + read * distributed.world_size())
        batches = _with_plain_messages(_start(loader))
        if self._shared:
            distributed.deal(loader)
        if skip:
            for _ in progress_bar(islice(batches, skip), total=skip, desc="skip batches already seen"):
                stop_if_requested()
        if random is not None:
            randomness.restore(random)
        return batches


def _is_death(error: Exception) -> bool:
    """Whether the loader says that a worker died; or the batch it left behind cannot be fetched from it any more."""
    text = str(error)
    if isinstance(error, RuntimeError):
        return text.startswith("DataLoader worker (pid")
    return not text.startswith("Caught ")  # an exception of a worker's own


def readable(batches: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Those of which an utterance could be read."""
    return (batch for batch in batches if len(batch[0]))


def _start(loader: Iterable[Any]) -> Iterator[Any]:
    """Begin to read.

    PyTorch raises where the main process stands when a worker dies, and be it in the middle of an update. Without its
    handler, the next batch tells.
    """
    if threading.current_thread() is not threading.main_thread():
        return iter(loader)
    handler = signal.getsignal(signal.SIGCHLD)
    try:
        return iter(loader)
    finally:
        signal.signal(signal.SIGCHLD, handler if handler is not None else signal.SIG_DFL)


def _with_plain_messages(batches: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """A user's mistake found in a worker process keeps its one-line message.

    PyTorch hands a worker's exception over as its type with the worker's traceback for a message.
    """
    try:
        yield from batches
    except UserError as error:
        marker = f"{type(error).__name__}: "
        text = str(error).strip()
        if text.startswith("Caught ") and marker in text:
            raise type(error)(text.rsplit(marker, 1)[1]) from error
        raise


def run_upstream(upstream: nn.Module, wavs: Sequence[Tensor]) -> Any:
    """What an upstream says of utterances.

    In eval mode what it draws at random leaves no trace: fairseq's models and older ones of transformers draw numbers
    that they do not use, and a pass that a feature cache spares would change the order of the data.
    """
    with nullcontext() if upstream.training else randomness.preserved():
        return upstream(wavs)


def to_device(wavs: Sequence[Any], device: torch.device) -> list[Tensor]:
    """Utterances as float32 tensors (samples,) on ``device``, marked where they were drawn at random."""
    moved = [torch.as_tensor(wav, dtype=torch.float32).to(device, non_blocking=True) for wav in wavs]
    for tensor, wav in zip(moved, wavs, strict=True):
        if isinstance(wav, RandomPiece):
            tensor.drawn_at_random = True  # type: ignore[attr-defined]
    return moved
