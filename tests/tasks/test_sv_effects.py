"""The effects of speaker verification, against what sox 14.4.2 made of the same signals, and by plain cases."""

import hashlib
import time

import numpy as np
import pytest
import soundfile
from numpy.random import RandomState

from downstream_tasks.sv.effects import DURATION, apply_effects, load_with_effects, remove_silence
from s3prl_interfaces.errors import DataError

LENGTHS = (1, 319, 320, 321, 1279, 1281, 1599, 1600, 1601, 1919, 1920, 1921, 5000, 20000)
LEVELS = (0, 1, 30, 46, 47, 48, 60, 200, 3000, 32767)

# Recorded from sox 14.4.2: its `gain -3.0`, then its `silence 1 0.1 0.1% -1 0.1 0.1%`, each seed's signal at 16 kHz in
# 32 bits. Length of what came out and the beginning of the SHA-256 of its samples as 32-bit integers.
SOX = {
    0: (0, "e3b0c44298fc1c14"),
    1: (10981, "6406ace1d498d18b"),
    2: (19432, "ce0e983b4cf08ac5"),
    3: (1920, "625191189bd642af"),
    4: (3476, "0b55aa225c179e24"),
    5: (5122, "328a7589e7076fb7"),
    6: (4173, "7f1f7351a8d9a727"),
    7: (5873, "bd88c03b6c4f2c99"),
    8: (3517, "9cd5ddd87b55bfe2"),
    9: (41941, "054113946365cada"),
    10: (45467, "37ebdae489af4594"),
    11: (8518, "5f096db9a36f8464"),
    12: (0, "e3b0c44298fc1c14"),
    13: (0, "e3b0c44298fc1c14"),
    14: (1860, "3e5621117a3c93a2"),
    15: (11370, "dbfcb4581ea24b6e"),
    16: (4100, "dfd107bac2e84282"),
    17: (20000, "77b42dd6366a5cc0"),
    18: (7247, "b3fa3b2d7deb1807"),
    19: (4950, "e92e84c767a8fddf"),
    20: (26718, "6ae6ca1eb24029a9"),
    21: (9753, "d518a1de62ba6c91"),
    23: (14797, "d24312631686edea"),
    25: (3648, "3f09021aa88eec28"),
    26: (21655, "86c3ede38747ee1c"),
    27: (3520, "5f305627c9ca2585"),
    28: (26168, "4bfef7cab4d10fa4"),
    29: (1920, "625191189bd642af"),
    83: (4801, "3cc31f165d039939"),
    110: (2243, "8cce74a9bb227996"),
}

# As above, of faint(seed).
SOX_FAINT = {
    0: (18259, "6c1418e1541d47bf"),
    1: (18688, "714a52b5d88dcdb4"),
    2: (18744, "30a80b1a1e699184"),
    3: (18683, "2c52d979f5c3d3e6"),
    4: (20382, "a06ac43e5924366a"),
    5: (20267, "8221e7d5c48a34d6"),
    6: (18317, "8995ef5aed3f1251"),
    7: (18597, "660f0279e767baaf"),
}


def signal(seed):
    """Pieces that are silent, faint or loud and last about as long as what sox counts; (samples,) int16."""
    random = RandomState(seed)
    pieces = []
    for _ in range(random.randint(3, 14)):
        length = LENGTHS[random.randint(len(LENGTHS))]
        level = LEVELS[random.randint(len(LEVELS))]
        kind = random.randint(3)
        if kind == 0:  # its root mean square is the level
            piece = level * (1 - 2 * (np.arange(length) % 2))
        elif kind == 1:
            piece = random.randint(-level, level + 1, length)
        else:  # clicks
            piece = level * (random.randint(0, 100, length) == 0)
        pieces.append(piece)
    return np.concatenate(pieces).astype(np.int16)


def faint(seed):
    """A silence that is almost loud, and what is hardly loud soon after sox has forgotten it; (samples,) int16."""
    random = RandomState(seed)
    pieces = []
    for _ in range(3):
        levels = (3000, random.randint(38, 47), random.randint(47, 66))
        lengths = (2000, DURATION + random.randint(200, 700), 4000)
        for level, length in zip(levels, lengths, strict=True):
            pieces.append(level * (1 - 2 * (np.arange(length) % 2)))
    return np.concatenate(pieces).astype(np.int16)


def fingerprint(samples):
    return len(samples), hashlib.sha256(samples.astype("<i4").tobytes()).hexdigest()[:16]


def loud(length, level=3000):
    return np.full(length, level << 16)


def quiet(length):
    return np.zeros(length, dtype=np.int64)


@pytest.mark.parametrize(
    ("make", "seed", "length", "digest"),
    [
        *((signal, seed, *expected) for seed, expected in SOX.items()),
        *((faint, seed, *expected) for seed, expected in SOX_FAINT.items()),
    ],
)
def test_samples_are_soxs(make, seed, length, digest):
    samples = make(seed)
    wav = apply_effects(samples.astype(np.float32) / np.float32(32768))
    assert wav.dtype == np.float32
    assert len(wav) == length
    # float32 holds what 32 bits held to 24 of them, as torchaudio gave it to S3PRL.
    exact = np.rint(samples.astype(np.int64) * 65536 * 10 ** (-3 / 20)).astype(np.int64)
    kept = remove_silence(exact)
    assert fingerprint(kept) == (length, digest)
    assert np.array_equal(wav, kept.astype(np.float32) / np.float32(2**31))


def test_the_recorded_signals_are_of_all_kinds():
    lengths = [(length, len(signal(seed))) for seed, (length, _) in SOX.items()]
    assert sum(length == 0 for length, _ in lengths) >= 2
    assert sum(0 < length < whole for length, whole in lengths) >= 15
    assert sum(length == whole for length, whole in lengths) >= 1


@pytest.mark.parametrize(("gap", "removed"), [(1599, 0), (1600 + 318, 0), (1600 + 319, 1600), (5000, 5000 - 319)])
def test_inner_silence_is_removed_from_a_tenth_of_a_second(gap, removed):
    """A sample is quiet when its window of 20 ms is, so silence begins 319 samples after the last loud sample."""
    samples = np.concatenate([loud(5000), quiet(gap), loud(5000)])
    expected = len(samples) - removed
    assert len(remove_silence(samples)) == expected


def test_leading_silence_is_removed():
    samples = np.concatenate([quiet(3000), loud(5000)])
    assert np.array_equal(remove_silence(samples), loud(5000))


def test_a_bang_is_removed_and_a_last_short_silence_is_kept():
    bang = np.concatenate([quiet(2000), loud(1000), quiet(4000), loud(2000), quiet(1000)])
    assert np.array_equal(remove_silence(bang), np.concatenate([loud(2000), quiet(1000)]))
    assert len(remove_silence(np.concatenate([loud(5000), quiet(8000), loud(DURATION - 1)]))) == 5000 + 319
    assert len(remove_silence(np.concatenate([loud(5000), quiet(8000), loud(DURATION)]))) == 5000 + 319 + DURATION


def test_the_threshold_is_a_thousandth_of_full_scale():
    step = 2147484  # the least whole number above 0.1 % of 2**31 - 1
    assert len(remove_silence(np.full(4000, step))) == 4000 - 319
    assert len(remove_silence(np.full(4000, step - 1))) == 0


@pytest.mark.parametrize("length", [0, 1, 319, 320, 1599])
def test_too_short_to_be_sound(length):
    assert len(remove_silence(loud(length))) == 0
    assert len(apply_effects(np.ones(length, dtype=np.float32))) == 0


def test_full_scale_does_not_overflow():
    samples = np.full(600_000, -(2**31))
    assert np.array_equal(remove_silence(samples), samples)


def test_gain():
    wav = np.full(2000, 0.5, dtype=np.float32)
    assert apply_effects(wav) == pytest.approx(0.5 * 10 ** (-3 / 20), abs=1e-7)


def test_files(tmp_path):
    wav = np.concatenate([np.zeros(3000), np.full(2000, 0.5), np.zeros(3000)])
    soundfile.write(tmp_path / "mono.wav", wav, 16000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([wav, wav], axis=1), 16000)
    soundfile.write(tmp_path / "silent.wav", 0 * wav, 16000)
    mono = load_with_effects(tmp_path / "mono.wav")
    assert len(mono) == 2000 + 319
    assert np.array_equal(mono, load_with_effects(tmp_path / "stereo.wav"))
    assert len(load_with_effects(tmp_path / "silent.wav")) == 0
    with pytest.raises(DataError, match=r"nothing\.wav cannot be read"):
        load_with_effects(tmp_path / "nothing.wav")


def test_a_corpus_is_done_in_minutes():
    """VoxCeleb1 has 1.2 million seconds; 500 seconds in one is a tenth of what one processor does."""
    noise = RandomState(0).randint(-20000, 20000, 16000 * 60).astype(np.float32) / 32768
    noise[16000:40000] = 0
    began = time.process_time()
    apply_effects(noise)
    assert time.process_time() - began < 60 / 500
