"""Corpora for the tasks."""

import pytest
import torch

from downstream_tasks import loading, utterance_level
from s3prl_interfaces.mini_superb import make_mini_superb


@pytest.fixture(scope="session")
def fluent_commands(tmp_path_factory):
    """A few spoken commands in Fluent Speech Commands' layout: 40 for training, 8 for dev and 10 for test."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["fluent_speech_commands"], scale=0.03)
    return folder


@pytest.fixture(scope="session")
def voxceleb1(tmp_path_factory):
    """A few utterances of a few speakers in VoxCeleb1's layout."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["voxceleb1"], scale=0.1)
    return folder


@pytest.fixture(scope="session")
def iemocap(tmp_path_factory):
    """Ten acted utterances of each of five sessions in IEMOCAP's layout, eight of them with an emotion that counts."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["iemocap"], scale=0.1)
    return folder


@pytest.fixture
def s3prls_order(monkeypatch):
    """Deal our batches as a loader without a generator of its own would: from PyTorch's global one, as S3PRL's."""

    def generator_of(seed, split, epoch):
        _, order = torch.empty(2, dtype=torch.int64).random_().tolist()
        return torch.Generator().manual_seed(order)

    for module in (loading, utterance_level):
        monkeypatch.setattr(module, "generator_of", generator_of)
