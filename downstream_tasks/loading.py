"""Loaders whose batches are a function of seed, split and epoch alone, whatever else draws random numbers."""

import hashlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

Batch = tuple[Sequence[Any], ...]


def generator_of(seed: int, split: str, epoch: int) -> torch.Generator:
    """The generator that deals the batches of one epoch of a split."""
    digest = hashlib.sha256(f"{seed} {split} {epoch}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def plain_batches(size: int, batch_size: int, shuffled_by: torch.Generator | None = None) -> Sampler[list[int]]:
    """Batches of ``size`` items, each item once, in order or shuffled; the last batch may be smaller."""
    items = range(size)
    order = SequentialSampler(items) if shuffled_by is None else RandomSampler(items, generator=shuffled_by)
    return BatchSampler(order, batch_size, drop_last=False)


class Groups(Sampler[list[int]]):
    """Batches that are made up beforehand, in order or shuffled.

    Args:
        groups: the items of each batch.
        shuffled_by: shuffles the batches, not what is in them.
    """

    def __init__(self, groups: Sequence[list[int]], shuffled_by: torch.Generator | None = None) -> None:
        self.groups = groups
        self.generator = shuffled_by

    def __len__(self) -> int:
        """How many batches there are."""
        return len(self.groups)

    def __iter__(self) -> Iterator[list[int]]:
        """Deal the batches."""
        count = len(self.groups)
        order = range(count) if self.generator is None else torch.randperm(count, generator=self.generator).tolist()
        return (self.groups[index] for index in order)


def transpose(samples: Sequence[tuple[Any, ...]]) -> Batch:
    """Items ``(wav, *others)`` as a batch ``(wavs, *others)``."""
    return tuple(zip(*samples, strict=True))


def longest_first(samples: Sequence[tuple[Any, ...]]) -> Batch:
    """As :func:`transpose`, the longest wav first (S3PRL's CTC tasks)."""
    return transpose(sorted(samples, key=lambda sample: len(sample[0]), reverse=True))


def make_loader(
    dataset: Dataset,
    batches: Sampler[list[int]],
    *,
    seed: int,
    split: str,
    epoch: int,
    num_workers: int,
    skip_bad_audio: bool = False,
    collate: Callable[[Sequence[tuple[Any, ...]]], Batch] = transpose,
) -> DataLoader:
    """A loader of batches ``(wavs, *others)``.

    What a dataset draws from Python's ``random`` (a crop) depends on seed, split, epoch and how many items were drawn
    before, not on the number of workers.

    Args:
        dataset: of items ``(wav, *others)``.
        batches: which items make up each batch, see :func:`plain_batches` and :class:`Groups`.
        seed: of the run.
        split: its name.
        epoch: counted from 0.
        num_workers: processes that read; 0 reads in this one.
        skip_bad_audio: leave out an utterance that cannot be read, and say so; else it is an error.
        collate: makes a batch of items.
    """
    return DataLoader(
        _Draws(dataset, f"{seed} {split} {epoch}", skip_bad_audio),
        batch_sampler=_Numbered(batches),
        num_workers=num_workers,
        collate_fn=_WithoutSkipped(collate),
        generator=generator_of(seed, f"{split} workers", epoch),
    )


def tell_skipped(split: str, evaluated: int, total: int, what: str = "utterances") -> None:
    """Say how many utterances (or draws of them) of a split were left out, if any."""
    if evaluated < total:
        log.warning("%s: %d of %d %s were left out.", split, total - evaluated, total, what)


class _Numbered(Sampler[list[tuple[int, int]]]):
    """Batches of (how many were drawn before, item)."""

    def __init__(self, batches: Sampler[list[int]]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        drawn = 0
        for batch in self.batches:
            yield list(enumerate(batch, start=drawn))
            drawn += len(batch)


class _Draws(Dataset):
    """A dataset that reads its n-th draw with a random state of that draw's own."""

    def __init__(self, dataset: Dataset, key: str, skip_bad_audio: bool) -> None:
        self.dataset = dataset
        self.key = key
        self.skip_bad_audio = skip_bad_audio

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, draw: tuple[int, int]) -> Any:
        number, index = draw
        state = random.getstate()
        random.seed(f"{self.key} {number}")
        try:
            return self.dataset[index]
        except DataError as error:
            if not self.skip_bad_audio:
                raise
            log.warning("Skipped, as `skip_bad_audio` says: %s", error)
            return None
        finally:
            random.setstate(state)


class _WithoutSkipped:
    """Collate what was read; a batch of which nothing was is ``((),)``."""

    def __init__(self, collate: Callable[[Sequence[tuple[Any, ...]]], Batch]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[tuple[Any, ...] | None]) -> Batch:
        read = [sample for sample in samples if sample is not None]
        return self.collate(read) if read else ((),)
