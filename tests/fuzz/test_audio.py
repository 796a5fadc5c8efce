"""Audio files: samples that are numbers, or one message that names the file, whatever the header claims."""

import io
import struct

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from downstream_tasks.audio import load_audio
from downstream_tasks.lengths import samples_of
from s3prl_interfaces import s3prl_compat
from s3prl_interfaces.errors import DataError
from tests.fuzz.helpers import mutated, outcome

SOUND = np.random.default_rng(0).normal(scale=0.1, size=(800, 2))


def audio(format="WAV", subtype="PCM_16", rate=16000, samples=SOUND):
    """The bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()


VALID = [
    audio(),
    audio(samples=SOUND[:, 0]),
    audio(subtype="FLOAT"),
    audio(subtype="PCM_U8", rate=8000),
    audio("FLAC"),
    audio("FLAC", rate=44100, samples=SOUND[:, 0]),
    audio("OGG", "VORBIS"),
    audio("AIFF"),
]


def with_rate(rate):
    """A WAV whose header claims a sample rate."""
    wav = audio(samples=SOUND[:, 0])
    return wav[:24] + struct.pack("<I", rate) + wav[28:]


def flac_of(frames):
    """A FLAC whose header claims a number of samples; 0, as in one from a pipe, is unknown."""
    flac = bytearray(audio("FLAC", samples=SOUND[:, 0]))
    field = int.from_bytes(flac[18:26], "big")  # 20 bits rate, 3 channels, 5 width, 36 samples
    flac[18:26] = (field >> 36 << 36 | frames).to_bytes(8, "big")
    return bytes(flac)


def values(*numbers):
    return audio(subtype="FLOAT", samples=np.resize(np.array(numbers, dtype=np.float32), 800))


claims = (
    st.builds(with_rate, st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 2, 100, 16001, 44101, 2**31 - 1, 192000]))
    | st.builds(flac_of, st.integers(0, 2**36 - 1))
    | st.builds(audio, rate=st.integers(1, 4000).map(lambda hundreds: 100 * hundreds))
    | st.lists(st.floats(width=32), min_size=1, max_size=5).map(lambda numbers: values(*numbers))
    | st.sampled_from([audio(samples=SOUND[:size]) for size in (0, 1, 399, 400)])
)
files = st.sampled_from(VALID).flatmap(lambda valid: mutated(valid)) | claims | st.binary(max_size=100)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.wav"


def regressions(test):
    for content in (
        b"", with_rate(16001), with_rate(1), with_rate(2**31 - 1), flac_of(0), flac_of(2**36 - 1), flac_of(801),
        values(np.nan), values(np.inf, -np.inf), values(3e38),
    ):  # fmt: skip
        test = example(content)(test)
    return test


def test_loading(tried, path):
    @given(files)
    @regressions
    def holds(content):
        path.write_bytes(content)
        wav = outcome(lambda: load_audio(path), str(path))
        if wav is not None:
            assert wav.dtype == np.float32
            assert wav.ndim == 1
            assert len(wav) >= 400
            assert np.isfinite(wav).all()
            assert len(wav) < 1 << 20

    tried(holds)


def test_lengths(tried, path):
    """A length is one that a tensor can hold; where nothing is damaged but the rate, it is that of what is read."""

    @given(files)
    @regressions
    def holds(content):
        path.write_bytes(content)
        length = outcome(lambda: samples_of(path), str(path))
        assert length is None or 400 <= length < 2**62

    tried(holds)


def test_s3prls_loading(tried, path):
    """What S3PRL's own code calls as `torchaudio.load` and `torchaudio.info`."""

    @given(files, st.integers(0, 900), st.sampled_from([-1, 1, 400, 2**40]))
    @example(flac_of(0), 0, -1)
    @example(flac_of(2**36 - 1), 0, -1)
    def holds(content, start, frames):
        path.write_bytes(content)
        found = outcome(lambda: s3prl_compat._load(path, frame_offset=start, num_frames=frames), str(path))
        if found is not None:
            wav, rate = found
            assert wav.dtype == torch.float32
            assert wav.ndim == 2
            assert rate > 0
        outcome(lambda: s3prl_compat._info(path), str(path))

    tried(holds)


@pytest.mark.parametrize("rate", [8000, 1000, 44100, 192000, 999, 1, 16001])
def test_rates(path, rate):
    path.write_bytes(audio(samples=np.resize(SOUND[:, 0], 5000), rate=rate))
    for read in (load_audio, samples_of):
        if rate in (999, 1, 16001):
            with pytest.raises(DataError, match=f"{rate} samples a second, which cannot be resampled"):
                read(path)
        else:
            read(path)


@pytest.mark.parametrize("name", [".", "a/b", "a" * 300, "a\0b", "\ud800"])
def test_names_of_no_file(tmp_path, name):
    for read in (load_audio, samples_of, s3prl_compat._load):
        with pytest.raises(DataError):
            read(tmp_path / name)
