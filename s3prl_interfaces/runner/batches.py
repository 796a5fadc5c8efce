"""A split's batches, as S3PRL's task heads hand them out."""

import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from downstream_tasks.audio import RandomPiece
from s3prl_interfaces.errors import ConfigError, UserError
from s3prl_interfaces.runner.randomness import preserved


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


def iterate(loader: Iterable[Any]) -> Iterator[tuple[Any, ...]]:
    """The loader's batches, without those of which no utterance could be read.

    A user's mistake found in a worker process keeps its one-line message: PyTorch hands a worker's exception over as
    its type with the worker's traceback for a message.
    """
    try:
        for batch in loader:
            if len(batch[0]):
                yield batch
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
    with nullcontext() if upstream.training else preserved():
        return upstream(wavs)


def to_device(wavs: Sequence[Any], device: torch.device) -> list[Tensor]:
    """Utterances as float32 tensors (samples,) on ``device``, marked where they were drawn at random."""
    moved = [torch.as_tensor(wav, dtype=torch.float32).to(device, non_blocking=True) for wav in wavs]
    for tensor, wav in zip(moved, wavs, strict=True):
        if isinstance(wav, RandomPiece):
            tensor.drawn_at_random = True  # type: ignore[attr-defined]
    return moved
