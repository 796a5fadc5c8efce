"""The lengths of a corpus: measured once, kept beside it."""

import json
import math

import numpy as np
import pytest
import soundfile

from downstream_tasks.audio import load_audio
from downstream_tasks.lengths import FOLDER, audio_lengths, samples_of
from s3prl_interfaces.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "s3prl_interfaces"


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for index in range(4):
        path = root / f"s{index % 2}" / f"{index}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(1000 + index), 16000)
    return root


FILES = ["s0/0.wav", "s1/1.wav", "s0/2.wav", "s1/3.wav"]


def never(path):
    raise AssertionError(f"{path} was measured again")


def kept_files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_lengths_are_measured_once(corpus, cache):
    assert audio_lengths(corpus, FILES) == [1000, 1001, 1002, 1003]
    assert audio_lengths(corpus, FILES, measure=never) == [1000, 1001, 1002, 1003]
    (kept,) = kept_files(corpus / FOLDER)
    assert kept.startswith("samples-")
    assert not cache.exists()


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
def test_lengths_are_those_that_are_read(tmp_path, rate):
    for samples in (rate, rate + 1, rate + 7):
        soundfile.write(tmp_path / "a.wav", np.zeros(samples), rate)
        assert (
            samples_of(tmp_path / "a.wav") == len(load_audio(tmp_path / "a.wav")) == math.ceil(samples * 16000 / rate)
        )


def test_another_list_kind_or_place_is_measured_anew(corpus, tmp_path):
    audio_lengths(corpus, FILES)
    assert audio_lengths(corpus, FILES[::-1]) == [1003, 1002, 1001, 1000]
    assert audio_lengths(corpus, FILES[:2], measure=lambda path: 7) == [7, 7]
    assert audio_lengths(corpus, FILES, measure=lambda path: 5, kind="trimmed") == [5, 5, 5, 5]
    corpus.rename(tmp_path / "moved")
    assert audio_lengths(tmp_path / "moved", FILES, measure=lambda path: 9) == [9, 9, 9, 9]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "{",
        lambda content: json.dumps([1]),
        lambda content: json.dumps({**content, "version": 0}),
        lambda content: json.dumps({**content, "key": "x"}),
        lambda content: json.dumps({**content, "lengths": content["lengths"][1:]}),
        lambda content: json.dumps({**content, "lengths": ["9", 9, 9, 9]}),
        lambda content: json.dumps({**content, "lengths": [0, 9, 9, 9]}),
        lambda content: json.dumps({**content, "lengths": 4}),
    ],
)
def test_a_damaged_file_is_written_anew(corpus, damage):
    expected = audio_lengths(corpus, FILES)
    (kept,) = (corpus / FOLDER).iterdir()
    kept.write_text(damage(json.loads(kept.read_text())))
    assert audio_lengths(corpus, FILES) == expected
    assert json.loads(kept.read_text())["lengths"] == expected


def test_a_corpus_that_cannot_be_written(corpus, cache):
    (corpus / FOLDER).touch()  # a file where the folder would be: as good as no permission, for root too
    audio_lengths(corpus, FILES)
    assert len(kept_files(cache)) == 1
    assert audio_lengths(corpus, FILES, measure=never) == [1000, 1001, 1002, 1003]


def test_nowhere_to_write(corpus, cache, caplog):
    (corpus / FOLDER).touch()
    cache.parent.touch()
    assert audio_lengths(corpus, FILES) == [1000, 1001, 1002, 1003]
    assert "measured again next time" in caplog.text


def test_a_bad_file_is_an_error_or_is_left_out(corpus, caplog):
    (corpus / "s0" / "2.wav").write_text("no audio")
    soundfile.write(corpus / "s1" / "3.wav", np.zeros(399), 16000)
    with pytest.raises(DataError, match=r"s0/2\.wav cannot be read"):
        audio_lengths(corpus, FILES[:3])
    with pytest.raises(DataError, match=r"s1/3\.wav has 399 samples, less than one frame"):
        audio_lengths(corpus, FILES[3:])
    with pytest.raises(DataError, match=r"none\.wav cannot be read: it does not exist"):
        audio_lengths(corpus, ["none.wav"])
    assert audio_lengths(corpus, FILES, skip_bad_audio=True) == [1000, 1001, 0, 0]
    assert "s1/3.wav has 399 samples" in caplog.text
    assert not (corpus / FOLDER).exists()  # what was left out may be mended


def test_no_file_needs_no_folder(tmp_path):
    assert audio_lengths(tmp_path / "nowhere", []) == []
    assert not (tmp_path / "nowhere").exists()
