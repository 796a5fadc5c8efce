"""Loaders whose batches are a function of seed, split and epoch alone, whatever else draws random numbers."""

import hashlib
import logging
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, Sampler, SequentialSampler

from downstream_tasks.audio import MIN_SAMPLES, SAMPLE_RATE
from s3prl_interfaces.errors import ConfigError, DataError

log = logging.getLogger(__name__)

Batch = tuple[Sequence[Any], ...]


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """The config keys that say how audio is read: every task has them."""

    num_workers: int = 12
    """Processes that read; 0 reads in this one."""
    skip_bad_audio: bool = False
    """Leave out an utterance that cannot be read, lacks its transcript or is too long, and say so; else it is an
    error."""
    max_seconds: float | None = None
    """Longest utterance, after a task's own cropping; a longer one counts as bad audio. None: any length."""

    def __post_init__(self) -> None:
        """Check what a type does not say.

        Raises:
            ConfigError: no utterance can be that short.
        """
        if self.max_seconds is not None and self.max_seconds * SAMPLE_RATE < MIN_SAMPLES:
            raise ConfigError(
                f"`downstream_expert`: `max_seconds` must be a frame (0.025) or more, but is {self.max_seconds:g}."
            )


class AudioDataset(Dataset):
    """Items ``(wav, *others)``, each of one audio file; ``wav`` is (samples,) float32 at 16 kHz."""

    @abstractmethod
    def path(self, index: int) -> Path:
        """The audio file of an item."""

    @abstractmethod
    def __len__(self) -> int:
        """How many items there are."""


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
    dataset: AudioDataset,
    batches: Sampler[list[int]],
    reading: ReadingConfig,
    *,
    seed: int,
    split: str,
    epoch: int,
    collate: Callable[[Sequence[tuple[Any, ...]]], Batch] = transpose,
) -> DataLoader:
    """A loader of batches ``(wavs, *others)``.

    What a dataset draws from Python's ``random`` (a crop) depends on seed, split, epoch and how many items were drawn
    before, not on the number of workers.

    Args:
        dataset: what is read.
        batches: which items make up each batch, see :func:`plain_batches` and :class:`Groups`.
        reading: with how many processes, and what becomes of bad audio.
        seed: of the run.
        split: its name.
        epoch: counted from 0.
        collate: makes a batch of items.
    """
    return DataLoader(
        _Draws(dataset, f"{seed} {split} {epoch}", reading),
        batch_sampler=_Numbered(batches),
        num_workers=reading.num_workers,
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

    def __init__(self, dataset: AudioDataset, key: str, reading: ReadingConfig) -> None:
        self.dataset = dataset
        self.key = key
        self.reading = reading

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: tuple[int, int]) -> Any:
        number, index = draw
        state = random.getstate()
        random.seed(f"{self.key} {number}")
        try:
            item = self.dataset[index]
            self._check_length(item[0], index)
            return item
        except DataError as error:
            if not self.reading.skip_bad_audio:
                raise
            log.warning("Skipped, as `skip_bad_audio` says: %s", error)
            return None
        finally:
            random.setstate(state)

    def _check_length(self, wav: Any, index: int) -> None:
        seconds, most = len(wav) / SAMPLE_RATE, self.reading.max_seconds
        if most is not None and seconds > most:
            raise DataError(
                f"Audio file {self.dataset.path(index)} gives {seconds:.2f} s, more than `max_seconds: {most:g}` "
                "allows: raise it, or leave such utterances out with `skip_bad_audio: true`."
            )


class _WithoutSkipped:
    """Collate what was read; a batch of which nothing was is ``((),)``."""

    def __init__(self, collate: Callable[[Sequence[tuple[Any, ...]]], Batch]) -> None:
        self.collate = collate

    def __call__(self, samples: Sequence[tuple[Any, ...] | None]) -> Batch:
        read = [sample for sample in samples if sample is not None]
        return self.collate(read) if read else ((),)
