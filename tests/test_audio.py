"""Reading audio as upstreams want it."""

import multiprocessing

import numpy as np
import pytest
import soundfile

from downstream_tasks import audio
from downstream_tasks.audio import load_audio
from s3prl_interfaces.errors import DataError


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch):
    for name in ("_told_rate", "_told_channels"):
        monkeypatch.setattr(audio, name, multiprocessing.Value("b", 0))


def sine(rate, frequency=440.0, seconds=1.0):
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)


def test_16_khz_is_read_exactly(tmp_path, caplog):
    samples = np.tile(np.array([0, 1, -1, 12345, -32768, 32767], dtype=np.int16), 100)
    soundfile.write(tmp_path / "a.wav", samples, 16000)
    wav = load_audio(tmp_path / "a.wav")
    assert wav.dtype == np.float32
    assert np.array_equal(wav, samples / 32768)
    assert not caplog.records


@pytest.mark.parametrize("rate", [8000, 44100])
def test_another_rate_is_resampled_and_said_once(tmp_path, caplog, rate):
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, sine(rate), rate, subtype="FLOAT")
        wav = load_audio(tmp_path / name)
        assert wav.shape == (16000,)
        assert wav.dtype == np.float32
        assert np.allclose(wav[500:-500], sine(16000)[500:-500], atol=0.01)  # less at the ends: nothing is beyond them
    (record,) = caplog.records
    assert f"a.wav has {rate} samples a second" in record.getMessage()


def test_channels_are_averaged_and_said_once(tmp_path, caplog):
    left, right = sine(16000), sine(16000, 1000.0)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
        assert np.allclose(load_audio(tmp_path / name), (left + right) / 2, atol=1e-6)
    (record,) = caplog.records
    assert "a.wav has 2 channels" in record.getMessage()


def test_both_are_said(tmp_path, caplog):
    soundfile.write(tmp_path / "a.wav", np.stack([sine(8000)] * 2, axis=1), 8000)
    assert load_audio(tmp_path / "a.wav").shape == (16000,)
    assert len(caplog.records) == 2


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(DataError, match=r"a\.wav cannot be read: it does not exist"):
        load_audio(path)
    path.write_bytes(b"RIFF, but nothing that follows")
    with pytest.raises(DataError, match=r"a\.wav cannot be read: (?!it does not exist)"):
        load_audio(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.wav cannot be read"):
        load_audio(path)
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(DataError, match=r"a\.wav has 0 samples at 16000 Hz, less than one frame"):
        load_audio(path)
