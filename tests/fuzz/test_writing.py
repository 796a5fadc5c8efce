"""What is prepared is written whole or not at all: on a full disk nothing is left behind."""

import os
from pathlib import Path

import pytest

from downstream_tasks.lengths import FOLDER, audio_lengths
from s3prl_interfaces.errors import DataError
from tests.fuzz.corpora import CORPORA, write_corpus
from tests.fuzz.helpers import files_in

PREPARED = [
    ("LibriSpeech", "asr-prepare"),
    ("LibriSpeech", "pr-prepare"),
    ("SNIPS", "sf-prepare"),
    ("VoxCeleb1", "sv-prepare"),
    ("IEMOCAP", "er-prepare"),
]


@pytest.fixture
def full_disk(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    for function in ("replace", "rename"):
        monkeypatch.setattr(os, function, fail)
        monkeypatch.setattr(Path, function, fail)  # Python 3.10's has taken os's before


@pytest.mark.parametrize(("corpus", "name"), PREPARED, ids=[name for _, name in PREPARED])
def test_a_full_disk(tmp_path, full_disk, monkeypatch, corpus, name):
    files, readers = CORPORA[corpus]
    kept = {file: text for file, text in files.items() if file not in (*readers[name].written, "dev_meta_data.txt")}
    write_corpus(tmp_path, kept)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="No space left on device"):
        readers[name].read(tmp_path)
    assert files_in(tmp_path) == set(kept)


def test_lengths_on_a_full_disk(tmp_path, full_disk, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_corpus(tmp_path, {"a.wav": ""})
    assert audio_lengths(tmp_path, ["a.wav"]) == [1600]
    assert (tmp_path / FOLDER).exists()
    assert files_in(tmp_path) == {"a.wav"}
