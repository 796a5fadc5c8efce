"""What S3PRL does to a wav of VoxCeleb1 before training and test: 3 dB quieter, without silence.

S3PRL asks sox for ``channels 1``, ``rate 16000``, ``gain -3.0`` and ``silence 1 0.1 0.1% -1 0.1 0.1%``
(``s3prl/downstream/sv_voxceleb1/dataset.py``). Gain and silence are made here as sox 14.4.2 makes them, sample for
sample. The other two do nothing to VoxCeleb1, which is mono at 16 kHz; a file of another rate is resampled by another
filter than sox's.
"""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from downstream_tasks.audio import SAMPLE_RATE, load_audio

# sox holds a sample as a whole number of 32 bits.
_FULL_SCALE = 1 << 31
_GAIN = math.exp(-3 * math.log(10) * 0.05)

DURATION = SAMPLE_RATE // 10
"""Samples that must be loud before sound begins, and quiet before it ends: 0.1 s."""
WINDOW = SAMPLE_RATE // 50
"""Samples over which the loudness is measured: 20 ms, ending with the sample that is judged."""

# A sample is loud if the root mean square of its window, rounded down, is above 0.1 % of the largest sample.
_LOUD = WINDOW * math.ceil((_FULL_SCALE - 1) / 1000) ** 2
"""The least sum of squares of a loud window."""
_CLIP = 1 << 26
"""One sample of this size is loud by itself; the squares of larger ones need not be told apart."""


def load_with_effects(path: Path) -> np.ndarray:
    """Read an utterance and apply the effects.

    Returns:
        (samples,) float32 at 16 kHz; without a sample if nothing in the file is loud for 0.1 s.

    Raises:
        DataError: the file is missing, cannot be decoded, or is shorter than one frame (25 ms) before the effects.
    """
    return apply_effects(load_audio(path))


def apply_effects(wav: np.ndarray, *, keep_silence: bool = False) -> np.ndarray:
    """Make a wav 3 dB quieter and remove its silence.

    Args:
        wav: (samples,) float32 at 16 kHz.
        keep_silence: leave the silence where it is.

    Returns:
        (samples that are left,) float32.
    """
    quieter = wav.astype(np.float64) * (_FULL_SCALE * _GAIN)
    samples = np.trunc(quieter + np.copysign(0.5, quieter)).astype(np.int64)  # sox rounds halves away from zero
    left = samples if keep_silence else remove_silence(samples)
    return left.astype(np.float32) / np.float32(_FULL_SCALE)


def remove_silence(samples: NDArray[np.int64]) -> NDArray[np.int64]:
    """Apply sox's ``silence 1 0.1 0.1% -1 0.1 0.1%`` to one channel at 16 kHz.

    Sound begins with the first 0.1 s of loud samples, which are kept, and ends with the next 0.1 s of quiet samples,
    which are removed; then it begins anew, with an empty window. So a bang between silences that is loud for less than
    0.1 s is removed, and a last quiet piece of less than 0.1 s is kept.

    Args:
        samples: (samples,) of 32 bits.

    Returns:
        (samples that are left,).
    """
    # Sums of whole numbers are exact, and stay so where the total wraps around: a window's sum is below 2**61.
    total = np.zeros(len(samples) + 1, dtype=np.int64)
    np.cumsum(np.clip(samples, -_CLIP, _CLIP) ** 2, out=total[1:])
    sums = total[1:].copy()
    sums[WINDOW:] -= total[1:-WINDOW]
    loud = sums >= _LOUD
    kept = [samples[:0]]
    position = 0
    while True:
        fresh = slice(position, position + WINDOW - 1)  # where the window, emptied at `position`, is not yet full
        loud[fresh] = total[1:][fresh] - total[position] >= _LOUD
        begin = _find_run(loud, position, True)
        if begin is None:
            break
        end = _find_run(loud, begin, False)
        kept.append(samples[begin:end])
        if end is None:
            break
        position = end + DURATION
    return np.concatenate(kept)


def _find_run(flags: NDArray[np.bool_], position: int, value: bool) -> int | None:
    """Where the first run of at least ``DURATION`` flags that are ``value`` begins, at or after ``position``."""
    while len(flags) - position >= DURATION:
        begin = _find(flags, position, value)
        position = _find(flags, begin, not value)
        if position - begin >= DURATION:
            return begin
    return None


def _find(flags: NDArray[np.bool_], position: int, value: bool) -> int:
    """The first flag that is ``value`` at or after ``position``, else their number."""
    rest = flags[position:]
    if not len(rest):
        return len(flags)
    # Both stop at the first they find.
    found = int(rest.argmax() if value else rest.argmin())
    return position + found if rest[found] == value else len(flags)
