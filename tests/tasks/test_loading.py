"""Batches that depend on seed, split and epoch alone, and utterances that cannot be read."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from downstream_tasks.loading import (
    AudioDataset,
    Groups,
    ReadingConfig,
    generator_of,
    longest_first,
    make_loader,
    plain_batches,
    transpose,
)
from s3prl_interfaces.errors import ConfigError, DataError


class Crops(AudioDataset):
    """Items of which each is read with a random number; some cannot be read."""

    def __init__(self, size, bad=()):
        self.size, self.bad = size, bad

    def __len__(self):
        return self.size

    def path(self, index):
        return Path(f"u{index}.wav")

    def __getitem__(self, index):
        if index in self.bad:
            raise DataError(f"u{index}.wav cannot be read")
        return np.full(index + 1, random.random()), index


class Longer(Crops):
    def __getitem__(self, index):
        return np.zeros(1000 + index), index


def deal(dataset, batches, *, seed=1, split="train", epoch=0, num_workers=0, **options):
    reading = ReadingConfig(num_workers=num_workers, **options)
    loader = make_loader(dataset, batches, reading, seed=seed, split=split, epoch=epoch)
    return [[(index, float(wav[0])) for wav, index in zip(*batch, strict=True)] if batch[0] else [] for batch in loader]


def shuffled(size=11, *, seed=1, split="train", epoch=0):
    return plain_batches(size, 3, generator_of(seed, split, epoch))


def items(batches):
    return [index for batch in batches for index, _ in batch]


def test_the_same_key_deals_the_same_whatever_else_is_drawn():
    torch.manual_seed(0), random.seed(0)
    first = deal(Crops(11), shuffled())
    torch.manual_seed(5), random.seed(5)
    assert deal(Crops(11), shuffled()) == first
    assert Counter(items(first)) == Counter(range(11))
    assert [len(batch) for batch in first] == [3, 3, 3, 2]


def test_workers_change_nothing():
    dealt = [deal(Crops(11), shuffled(), num_workers=workers) for workers in (0, 1, 3)]
    assert dealt[0] == dealt[1] == dealt[2]


@pytest.mark.parametrize("key", [{"seed": 2}, {"split": "dev"}, {"epoch": 1}])
def test_another_key_deals_otherwise(key):
    assert items(deal(Crops(11), shuffled(**key))) != items(deal(Crops(11), shuffled()))
    plain = plain_batches(11, 3)
    assert deal(Crops(11), plain, **key) != deal(Crops(11), plain)  # the random numbers of the items


def test_an_item_that_comes_twice_in_an_epoch_is_read_twice():
    dealt = deal(Crops(4), Groups([[1, 1], [1]]))
    assert len({number for batch in dealt for _, number in batch}) == 3


def test_reading_leaves_the_random_state_alone():
    random.seed(7)
    state = random.getstate()
    deal(Crops(11), shuffled())
    assert random.getstate() == state


def test_plain_batches_keep_the_order():
    assert list(plain_batches(7, 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_groups_are_shuffled_whole():
    groups = [[0, 1], [2], [3, 4, 5], [6], [7, 8]]
    dealt = list(Groups(groups, generator_of(1, "train", 0)))
    assert list(Groups(groups)) == groups != dealt
    assert sorted(dealt) == groups
    assert len(Groups(groups)) == 5


def test_what_cannot_be_read_is_an_error_or_is_left_out(caplog):
    batches = plain_batches(5, 2)
    with pytest.raises(DataError, match=r"u1\.wav cannot be read"):
        deal(Crops(5, bad=(1, 4)), batches)
    for workers in (0, 2):
        dealt = deal(Crops(5, bad=(1, 4)), batches, skip_bad_audio=True, num_workers=workers)
        assert items(dealt) == [0, 2, 3]
        assert [len(batch) for batch in dealt] == [1, 2, 0]  # an empty batch keeps its place
    assert "Skipped, as `skip_bad_audio` says: u4.wav cannot be read" in caplog.messages
    whole = deal(Crops(5), batches)
    assert deal(Crops(5, bad=(1,)), batches, skip_bad_audio=True)[1:] == whole[1:]


def test_an_utterance_above_the_limit_is_bad_audio(caplog):
    """Items have 1000, 1001, ... samples; 1002 are 62.625 ms."""
    batches = plain_batches(5, 5)
    assert items(deal(Longer(5), batches)) == [0, 1, 2, 3, 4]
    limit = {"max_seconds": 1002 / 16000}
    with pytest.raises(DataError, match=r"Audio file u3\.wav gives 0\.06 s, more than `max_seconds: 0\.062625` allows"):
        deal(Longer(5), batches, **limit)
    assert items(deal(Longer(5), batches, skip_bad_audio=True, **limit)) == [0, 1, 2]
    assert [message.startswith("Skipped") for message in caplog.messages] == [True, True]


@pytest.mark.parametrize("seconds", [0, -1, 0.0249])
def test_a_limit_that_no_utterance_meets(seconds):
    with pytest.raises(ConfigError, match="`max_seconds` must be a frame"):
        ReadingConfig(max_seconds=seconds)


def test_longest_first():
    samples = [("ab", 1), ("abcd", 2), ("abc", 3), ("abcd", 4)]
    assert longest_first(samples) == (("abcd", "abcd", "abc", "ab"), (2, 4, 3, 1))
    assert transpose(samples) == (("ab", "abcd", "abc", "abcd"), (1, 2, 3, 4))
