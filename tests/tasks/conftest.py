"""Corpora for the tasks."""

import pytest
import torch

from downstream_tasks import loading, text_expert, utterance_level
from downstream_tasks.asr import expert as asr
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


@pytest.fixture(scope="session")
def librispeech(tmp_path_factory):
    """Short sentences read aloud in LibriSpeech's layout: 24 for training, 3 for dev-clean and 3 for test-clean."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["librispeech"], scale=0.04)
    return folder


@pytest.fixture(scope="session")
def snips(tmp_path_factory):
    """A few requests in Audio SNIPS' layout: eight speakers say 6 each for training, and four 2 for valid and test."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["snips"], scale=0.1)
    return folder


@pytest.fixture(scope="session")
def speech_commands(tmp_path_factory):
    """The two folders of Speech Commands: per word 2 clips for training and 1 each for dev and test, and 5 noises."""
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("corpora"), corpora=["speech_commands"], scale=0.06)
    return folder


@pytest.fixture
def s3prls_order(monkeypatch):
    """Deal our batches as a loader without a generator of its own would: from PyTorch's global one, as S3PRL's."""

    def generator_of(seed, split, epoch):
        _, order = torch.empty(2, dtype=torch.int64).random_().tolist()
        return torch.Generator().manual_seed(order)

    for module in (loading, utterance_level, text_expert, asr):
        monkeypatch.setattr(module, "generator_of", generator_of)
