"""What becomes of audio that is not as it should be: for every task, in training and in test."""

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.functional import resample

from downstream_tasks import audio
from downstream_tasks.registry import TASKS, load_expert
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.runner.config import load_config
from tests.tasks.mini import lay_out

LIMIT = 6.0
"""Seconds; every utterance of the small corpora is shorter."""
READER = dict.fromkeys(("pr", "sf"), "corpus")
"""Where the keys of reading stand; in the other tasks it is ``datarc``."""
ONCE = {  # options under which an epoch shows each training utterance once
    "pr": {"windows": "disjoint"},
    "sf": {"windows": "disjoint"},
    "ks": {"train_sampling": "plain", "dev_sampling": "plain"},
}
SPLITS = {"asr": ("train", "test-clean")}


def corrupt(path, wav):
    path.write_bytes(b"this is not audio, whatever its name says")


def shorter_than_a_frame(path, wav):
    soundfile.write(path, wav[:399], 16000)


def too_long(path, wav):
    noise = np.random.default_rng(0).normal(size=20 * 16000)
    soundfile.write(path, 0.1 * noise, 16000)


def another_rate(path, wav):
    soundfile.write(path, wav, 8000)  # so that it is twice as long


def stereo(path, wav):
    soundfile.write(path, np.stack([wav, 0 * wav], axis=1), 16000)


@pytest.fixture(params=[task.name for task in TASKS])
def task(request):
    return request.param


@pytest.fixture(params=[0, 1], ids=["train", "test"])
def split(request, task):
    return SPLITS.get(task, ("train", "test"))[request.param]


@pytest.fixture
def place(task, request, tmp_path, monkeypatch):
    """A copy of the corpus, to be spoilt."""
    lay_out(task, request, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(task, place, **options):
    config = load_config([f"configs/{task}.yaml", f"configs/mini/{task}.yaml", f"configs/mini/quick/{task}.yaml"])
    config["downstream_expert"][READER.get(task, "datarc")] |= {**ONCE.get(task, {}), **options}
    block = {"downstream_expert": config["downstream_expert"]}
    return load_expert(task)(upstream_dim=4, upstream_rate=320, expdir=str(place), **block)


def wavs_of(expert, split):
    return [wav for batch in expert.get_dataloader(split) for wav in batch[0]]


def spoil(expert, split, by):
    """Spoil the first utterance of a split; returns its file."""
    expert.get_dataloader(split)  # ASR's datasets are made when they are asked for
    path = expert.datasets[split].path(0)
    wav, rate = soundfile.read(path)
    assert rate == 16000
    by(path, wav)
    return path


@pytest.mark.parametrize("by", [corrupt, shorter_than_a_frame, too_long])
def test_bad_audio_is_an_error_that_names_it_or_is_left_out(task, split, place, by, caplog):
    limit = {"max_seconds": LIMIT}
    expert = build(task, place, **limit)
    whole = len(wavs_of(expert, split))
    path = spoil(expert, split, by)
    with pytest.raises(DataError, match=path.name):
        wavs_of(build(task, place, **limit), split)
    caplog.clear()
    read = wavs_of(build(task, place, **limit, skip_bad_audio=True), split)
    assert len(read) == whole - 1
    assert max(map(len, read)) <= LIMIT * 16000
    told = [message for message in caplog.messages if "Skipped, as `skip_bad_audio` says" in message]
    assert told
    assert all(path.name in message for message in told)


def test_without_a_limit_long_audio_is_read(task, split, place):
    """Whole; but SUPERB crops the training utterances of SID and SV to 8 seconds."""
    expert = build(task, place)
    whole = len(wavs_of(expert, split))
    spoil(expert, split, too_long)
    read = wavs_of(build(task, place), split)
    assert len(read) == whole
    cropped = (task, split) in {("sid", "train"), ("sv", "train")}
    assert max(map(len, read)) == pytest.approx((8 if cropped else 20) * 16000, rel=1e-3)


@pytest.mark.parametrize("by", [another_rate, stereo])
def test_another_format_is_converted_and_said(task, split, place, by, caplog, monkeypatch):
    for said_once in ("_told_rate", "_told_channels"):
        monkeypatch.setattr(getattr(audio, said_once), "value", 0)
    path = spoil(build(task, place), split, by)
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    expected = resample(torch.from_numpy(samples.sum(axis=1) / samples.shape[1]), rate, 16000).numpy()
    expert = build(task, place)
    expert.get_dataloader(split)
    dataset = expert.datasets[split]
    (index,) = (index for index in range(len(dataset)) if dataset.path(index) == path)
    transform = getattr(expert, "transform", lambda wav: wav)  # SV's and KS's
    assert np.abs(dataset[index][0] - transform(expected)).max() < 1e-6
    assert ("resampled" in caplog.text) == (by is another_rate)
    assert ("averaged" in caplog.text) == (by is stereo)
