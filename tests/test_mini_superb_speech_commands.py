"""The small Speech Commands: its layout, its bytes, and that its words can be told apart."""

import json
import platform
import re
import wave
from collections import Counter, defaultdict

import numpy as np
import pytest
from numpy.random import RandomState

from downstream_tasks.ks.dataset import KEYWORDS, split_of
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb import CORPORA, corpus, make_mini_superb, speech_commands

CORPUS = ["speech_commands"]
SCALE = 0.06
SHA256 = "3026ae43853f8f2bed72fbf77845aa848aa065b4f7dfedaa389314b3df3f4709"
TRAIN, TEST = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
OTHERS = {"bird", "cat", "eight", "four", "happy", "marvin", "nine", "tree"}
NOISES = {"exercise_bike", "mains_hum", "pink_noise", "running_tap", "white_noise"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    (folder,) = make_mini_superb(tmp_path_factory.mktemp("mini"), corpora=CORPUS, scale=SCALE)
    return folder


def samples_of(path):
    with wave.open(str(path)) as file:
        parameters = (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getcomptype())
        assert parameters == (1, 2, 16000, "NONE")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)


def test_name():
    assert set(CORPUS) < set(CORPORA)


def test_layout_is_that_of_speech_commands(tiny):
    assert {path.name for path in tiny.iterdir()} == {TRAIN, TEST, "mini_superb.json"}
    assert {path.name for path in (tiny / TRAIN).iterdir()} == {*KEYWORDS, *OTHERS, "_background_noise_"}
    assert {path.name for path in (tiny / TEST).iterdir()} == {*KEYWORDS, "_unknown_", "_silence_"}
    assert {path.stem for path in (tiny / TRAIN / "_background_noise_").iterdir()} == NOISES
    words = [path for path in tiny.glob("*/*/*.wav") if path.parent.name not in ("_background_noise_", "_silence_")]
    assert len(words) == 18 * 3 + 11 + 11
    assert all(re.fullmatch(r"[0-9a-f]{8}_nohash_\d+\.wav", path.name) for path in words)


def test_each_split_of_the_rule_occurs_and_the_test_set_is_of_the_third(tiny):
    counts = defaultdict(Counter)
    for path in (tiny / TRAIN).glob("[a-z]*/*.wav"):
        counts[split_of(path.name)][path.parent.name] += 1
    assert counts["train"] == dict.fromkeys([*KEYWORDS, *OTHERS], 2)
    assert counts["dev"] == dict.fromkeys([*KEYWORDS, *OTHERS], 1)
    assert counts["unused"] == dict.fromkeys([*KEYWORDS, "bird"], 1)
    for path in (tiny / TEST).glob("*/*.wav"):
        if path.parent.name != "_silence_":
            assert split_of(path.name) == "unused"
            word = "bird" if path.parent.name == "_unknown_" else path.parent.name
            assert path.read_bytes() == (tiny / TRAIN / word / path.name).read_bytes()


@pytest.mark.parametrize("seed", [0, 1])
def test_plan_at_full_size(seed):
    clips = list(speech_commands._plan(seed, 1.0))
    files = [file for clip in clips for file in clip.files]
    assert len(files) == len(set(files))
    assert sum(file.startswith(TRAIN) for file in files) == 943
    counts = Counter(file.split("/")[1] for file in files if file.startswith(TEST))
    assert counts == dict.fromkeys([*KEYWORDS, "_unknown_"], 17)
    assert {clip.word for clip in clips for file in clip.files if "/_unknown_/" in file} == OTHERS
    speakers, variants = defaultdict(set), defaultdict(set)
    for clip in clips:
        split = split_of(clip.files[0].split("/")[-1])
        assert clip.files[0].split("/")[-1].startswith(f"{clip.speaker.id}_nohash_")
        speakers[split].add(clip.speaker.id)
        variants[split].add(clip.speaker.variant)
    assert {split: len(ids) for split, ids in speakers.items()} == {"train": 24, "dev": 5, "unused": 6}
    assert {split: len(names) for split, names in variants.items()} == {"train": 24, "dev": 5, "unused": 6}
    assert len(set().union(*variants.values())) == 35


def test_sound(tiny):
    for path in (tiny / TRAIN).glob("[a-z]*/*.wav"):
        samples = samples_of(path)
        assert 6000 < len(samples) <= 16000
        levels = np.sqrt((samples[: len(samples) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1))
        assert levels.min() < 0.3 * levels.max()
    assert any(len(samples_of(path)) == 16000 for path in (tiny / TRAIN).glob("[a-z]*/*.wav"))
    for path in (tiny / TRAIN / "_background_noise_").iterdir():
        samples = samples_of(path)
        assert 6 * 16000 <= len(samples) <= 9 * 16000
        assert 1000 <= np.abs(samples).max() < 12000
    silences = list((tiny / TEST / "_silence_").iterdir())
    assert [len(samples_of(path)) for path in silences] == [16000]


def test_noises_differ():
    """By where their power is."""
    shares = {}
    for name in sorted(NOISES):
        power = np.abs(np.fft.rfft(speech_commands._noise(name, 32000, RandomState(0)).astype(float))) ** 2
        shares[name] = power[:2000].sum() / power[1:].sum()  # below 1 kHz, of 8
    assert shares["running_tap"] < 0.05 < shares["white_noise"] < 0.2 < shares["pink_noise"]
    assert shares["mains_hum"] > 0.9


def test_the_loudest_second_is_kept():
    samples = np.zeros(20000, np.int16)
    samples[[1000, 3000, 18000]] = 300, 300, 350
    assert np.flatnonzero(speech_commands._loudest_second(samples)).tolist() == [999, 15999]  # the last two
    samples[18000] = 299
    assert np.flatnonzero(speech_commands._loudest_second(samples)).tolist() == [1000, 3000]
    assert len(speech_commands._loudest_second(samples)) == 16000
    short = np.ones(9000, np.int16)
    assert speech_commands._loudest_second(short) is short


def test_sizes():
    assert {split: speech_commands._count(split, 1.0) for split in speech_commands._CLIPS} == {
        "train": 36,
        "dev": 6,
        "unused": 17,
    }
    assert {speech_commands._count(split, 1e-9) for split in speech_commands._CLIPS} == {1}


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="eSpeak NG's floats may round otherwise")
def test_pinned_hash(tiny):
    marker = json.loads((tiny / corpus.MARKER).read_text())
    assert marker == {
        "corpus": "speech_commands",
        "version": 1,
        "seed": 0,
        "scale": SCALE,
        "sha256": corpus.digest(tiny),
    }
    assert marker["sha256"] == SHA256, "other bytes for the same seed: raise VERSION and pin anew, or mend it"


def test_another_scale_leaves_sounds_and_another_seed_changes_them(tiny, tmp_path):
    (smaller,) = make_mini_superb(tmp_path / "a", corpora=CORPUS, scale=0.01)
    (other,) = make_mini_superb(tmp_path / "b", corpora=CORPUS, scale=0.01, seed=1)
    names = {path.relative_to(smaller) for path in smaller.rglob("*.wav")}
    assert all((tiny / name).read_bytes() == (smaller / name).read_bytes() for name in names)
    assert not {path.name for path in other.glob("*/[a-z]*/*.wav")} & {name.name for name in names}
    for name in ("_background_noise_/white_noise.wav", "_background_noise_/mains_hum.wav"):
        assert (tiny / TRAIN / name).read_bytes() != (other / TRAIN / name).read_bytes()


def test_nothing_is_left_after_a_failure(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(speech_commands, "record", fail)
    with pytest.raises(DataError, match="disk full"):
        make_mini_superb(tmp_path, corpora=CORPUS, scale=SCALE)
    assert list(tmp_path.iterdir()) == []


def test_words_can_be_learned(tmp_path):
    """From the spectrum of ten pieces of each clip, by least squares, on speakers that training has not heard."""
    folder = speech_commands.make(tmp_path, seed=0, scale=0.7)
    features, labels = defaultdict(list), defaultdict(list)
    for path in sorted((folder / TRAIN).glob("[a-z]*/*.wav")):
        if path.parent.name not in KEYWORDS:
            continue
        frames = np.lib.stride_tricks.sliding_window_view(samples_of(path), 400)[::160] * np.hanning(400)
        power = np.abs(np.fft.rfft(frames, 512)) ** 2
        edges = (np.linspace(0, 1, 17) ** 1.7 * 256).astype(int)
        bands = np.log(np.add.reduceat(power[:, :256], edges[:-1], axis=1) + 1)
        loud = np.flatnonzero(bands.mean(axis=1) > bands.mean() + 0.3 * bands.mean(axis=1).std())
        bands = bands[loud[0] : loud[-1] + 1] - bands.mean(axis=0)
        split = split_of(path.name)
        features[split].append(np.concatenate([piece.mean(axis=0) for piece in np.array_split(bands, 8)]))
        labels[split].append(KEYWORDS.index(path.parent.name))
    mean, spread = np.mean(features["train"], axis=0), np.std(features["train"], axis=0)
    train, unseen = (
        np.insert((np.array(features[split]) - mean) / spread, 0, 1, axis=1) for split in ("train", "unused")
    )
    covariance = train.T @ train + 100 * np.eye(train.shape[1])
    weights = np.linalg.solve(covariance, train.T @ np.eye(10)[labels["train"]])
    assert np.mean((unseen @ weights).argmax(axis=1) == labels["unused"]) > 0.5  # chance is 0.1
