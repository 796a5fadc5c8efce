"""The small IEMOCAP: its layout, its bytes, and that its emotions can be heard."""

import json
import platform
import re
import wave

import numpy as np
import pytest
from numpy.random import RandomState

from s3prl_interfaces.mini_superb import corpus, iemocap

SCALE = 0.1
SHA256 = "0b685a35258f8096d4f02465230d40f4cc42a82847eb43cfce9f12dca287b6f4"
SESSIONS = range(1, 6)
LINE = re.compile(
    r"\[(\d+\.\d{4}) - (\d+\.\d{4})\]\t(Ses0\d[FM]_(?:impro\d\d|script\d\d_\d)_[FM]\d{3})\t(\w{3})\t"
    r"\[\d\.\d{4}(, \d\.\d{4}){2}\]"
)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return iemocap.make(tmp_path_factory.mktemp("mini"), seed=0, scale=SCALE)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return iemocap.make(tmp_path_factory.mktemp("mini"), seed=0, scale=0.5)


def turns_of(folder, session):
    """Name: (emotion, begin, end), as the annotations of a session have them."""
    turns = {}
    for path in sorted((folder / f"Session{session}" / "dialog" / "EmoEvaluation").iterdir()):
        lines = path.read_text().splitlines()
        assert lines[:2] == ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        found = [LINE.fullmatch(line) for line in lines if line.startswith("[")]
        names = [match[3] for match in found]
        assert names == sorted(names)
        assert all(name.startswith(f"{path.stem}_") for name in names)
        turns.update({match[3]: (match[4], float(match[1]), float(match[2])) for match in found})
    return turns


def samples_of(path):
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(float)


def test_layout(half):
    for session in SESSIONS:
        turns = turns_of(half, session)
        wavs = {path.stem: path for path in half.glob(f"Session{session}/sentences/wav/*/*.wav")}
        assert turns.keys() == wavs.keys()
        assert len(turns) == 30
        assert all(path.parent.name == name.rpartition("_")[0] for name, path in wavs.items())
        assert {name[-4] for name in turns} == {"F", "M"}
        assert {emotion for emotion, *_ in turns.values()} == {"neu", "hap", "exc", "ang", "sad", "fru", "xxx"}
        for name, (_, begin, end) in turns.items():
            assert end - begin == pytest.approx(len(samples_of(wavs[name])) / 16000, abs=2e-4)


def test_metadata(half):
    for session in SESSIONS:
        for split, sessions in (("test", [session]), ("train", [other for other in SESSIONS if other != session])):
            content = json.loads((half / "meta_data" / f"Session{session}" / f"{split}_meta_data.json").read_text())
            assert content["labels"] == {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
            found = {entry["path"].split("/")[-1][:-4]: entry["label"] for entry in content["meta_data"]}
            turns = {name: turn[0] for one in sessions for name, turn in turns_of(half, one).items()}
            kept = {name: emotion for name, emotion in turns.items() if emotion not in ("fru", "xxx")}
            assert found == {name: "hap" if emotion == "exc" else emotion for name, emotion in kept.items()}
            assert all((half / entry["path"]).is_file() for entry in content["meta_data"])


def test_the_smallest_has_every_emotion_in_every_session(tiny):
    for session in SESSIONS:
        turns = turns_of(tiny, session)
        assert len(turns) == 10
        assert {"neu", "hap", "ang", "sad"} < {emotion for emotion, *_ in turns.values()}
    assert [len(list(iemocap._plan(0, count))) for count in (10, 60)] == [50, 300]


def test_speakers_differ():
    women, men = iemocap._draw_speakers(RandomState(0))
    assert [one.gender for one in women + men] == ["female"] * 5 + ["male"] * 5
    assert len({one.variant for one in women + men}) == 10
    assert [woman.room for woman in women] == [man.room for man in men]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="eSpeak NG's floats may round otherwise")
def test_pinned_hash(tiny):
    marker = json.loads((tiny / corpus.MARKER).read_text())
    assert marker == {"corpus": "iemocap", "version": 1, "seed": 0, "scale": SCALE, "sha256": corpus.digest(tiny)}
    assert marker["sha256"] == SHA256, "other bytes for the same seed: raise VERSION and pin anew, or mend it"


def test_another_scale_leaves_sounds_and_another_seed_changes_them(tiny, half, tmp_path):
    other = iemocap.make(tmp_path, seed=1, scale=SCALE)
    for path in tiny.glob("Session*/sentences/wav/*/*.wav"):
        name = path.relative_to(tiny)
        assert path.read_bytes() == (half / name).read_bytes()
        assert path.read_bytes() != (other / name).read_bytes()


def test_emotions_can_be_learned_but_not_by_loudness_alone(half):
    """From the mean and spread of the spectrum, by least squares, on speakers that training has not heard."""
    right = {"spectrum": [], "loudness": []}
    sounds = {}
    for path in half.glob("Session*/sentences/wav/*/*.wav"):
        frames = np.lib.stride_tricks.sliding_window_view(samples_of(path), 400)[::160] * np.hanning(400)
        power = np.abs(np.fft.rfft(frames, 512)) ** 2
        edges = (np.linspace(0, 1, 25) ** 1.7 * 256).astype(int)
        bands = np.log(np.add.reduceat(power[:, :256], edges[:-1], axis=1) + 1)
        spectrum = np.concatenate([bands.mean(axis=0), bands.std(axis=0)])
        sounds[path.relative_to(half).as_posix()] = {"spectrum": spectrum, "loudness": bands.mean(keepdims=True)[0]}
    for session in SESSIONS:
        files = [half / "meta_data" / f"Session{session}" / f"{split}_meta_data.json" for split in ("train", "test")]
        train, test = (json.loads(file.read_text()) for file in files)
        for kind, scores in right.items():
            (features, labels), (unseen, truth) = (
                (
                    np.stack([sounds[entry["path"]][kind] for entry in split["meta_data"]]),
                    np.array([split["labels"][entry["label"]] for entry in split["meta_data"]]),
                )
                for split in (train, test)
            )
            mean, spread = features.mean(axis=0), features.std(axis=0)
            features, unseen = (np.insert((x - mean) / spread, 0, 1, axis=1) for x in (features, unseen))
            covariance = features.T @ features + 10 * np.eye(features.shape[1])
            weights = np.linalg.solve(covariance, features.T @ np.eye(4)[labels])
            scores.append(((unseen @ weights).argmax(axis=1) == truth).mean())
    assert 0.45 < np.mean(right["spectrum"]) < 0.9  # chance is 0.25
    assert np.mean(right["loudness"]) < 0.55
