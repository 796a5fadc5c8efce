"""Room, noise and sampling rate: from a synthesiser's dry sound to what a microphone hears.

The same seed must give the same bytes on every CPU, although NumPy and BLAS choose their code, and with it
the order of a sum, by what the CPU offers. So signals here are whole numbers held in float64 and filters have
whole coefficients: products and sums stay far below 2**53, are therefore exact, and an exact sum has no
order. What is not exact (a sine, a power) is done on one Python float, never on an array, and is rounded to a
coarse grid before it meets a signal. There is no FFT.

Random numbers come from :class:`numpy.random.RandomState`, whose stream NumPy keeps unchanged for good; that
of the newer ``Generator`` may change with any release.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

Signal = NDArray[np.float64]
"""Samples ``(time,)``: whole numbers, in units of int16."""

SAMPLE_RATE = 16000

# 22050 Hz to 16000 Hz is 441 samples to 320.
_IN, _OUT = 441, 320
_HALF = 48  # reach of the low-pass filter, input samples
_CUTOFF = 7350 / 22050  # cycles a sample; with this reach all above 8 kHz is some 70 dB down
_FILTER_ONE = 1 << 16
_GAIN_ONE = 1 << 12


class Room(NamedTuple):
    """Echoes of a room: delays in samples and gains in 1/4096, one of each an echo."""

    delays: tuple[int, ...]
    gains: tuple[int, ...]


def resample(samples: NDArray[np.int16]) -> Signal:
    """Resample from 22050 to 16000 Hz with an anti-aliasing low-pass filter.

    Args:
        samples: ``(time,)``, int16, at 22050 Hz.

    Returns:
        ``(ceil(time * 320 / 441),)`` at 16000 Hz.
    """
    length = -(-len(samples) * _OUT // _IN)
    blocks = -(-length // _OUT)
    padded = np.zeros(blocks * _IN + 2 * _HALF)
    padded[_HALF : _HALF + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, _IN + 2 * _HALF)[::_IN]
    return np.rint((windows @ _resampling_matrix()).ravel()[:length] / _FILTER_ONE)


@functools.lru_cache(maxsize=1)
def _resampling_matrix() -> NDArray[np.float64]:
    """What each input of a block (with its neighbours) adds to each output of it: whole numbers."""
    matrix = np.zeros((_IN + 2 * _HALF, _OUT))
    for output in range(_OUT):
        centre = _HALF + output * _IN / _OUT
        for source in range(math.ceil(centre - _HALF), math.floor(centre + _HALF) + 1):
            matrix[source, output] = round(_FILTER_ONE * _low_pass(source - centre))
    return matrix


def _low_pass(offset: float) -> float:
    """Ideal low-pass filter under a Blackman window, at ``offset`` input samples from its centre."""
    phase = math.pi * offset / _HALF
    window = 0.42 + 0.5 * math.cos(phase) + 0.08 * math.cos(2 * phase)
    angle = 2 * math.pi * _CUTOFF * offset
    return 2 * _CUTOFF * window * (math.sin(angle) / angle if angle else 1.0)


def draw_room(random: RandomState) -> Room:
    """Draw a room: some first reflections and a thinning tail, 0.1 to 0.4 s to 60 dB down."""
    decay_time = random.randint(100, 401) * SAMPLE_RATE // 1000
    first = random.randint(24, 480, size=8)
    late = random.randint(480, decay_time, size=24)
    loudness = random.randint(60, 161) / 1000  # of the first reflections, relative to the direct sound
    delays = sorted(int(delay) for delay in np.concatenate([first, late]))
    signs = random.randint(0, 2, size=len(delays)) * 2 - 1
    gains = [
        round(_GAIN_ONE * loudness * 10.0 ** (-3 * delay / decay_time)) * int(sign)
        for delay, sign in zip(delays, signs, strict=True)
    ]
    return Room(tuple(delays), tuple(gains))


def add_room(signal: Signal, room: Room) -> Signal:
    """Add the echoes of ``room``; the result is as much longer as its longest delay."""
    length = len(signal)
    wet = np.zeros(length + max(room.delays))
    wet[:length] = signal * _GAIN_ONE
    for delay, gain in zip(room.delays, room.gains, strict=True):
        wet[delay : delay + length] += signal * gain
    return np.rint(wet / _GAIN_ONE)


def pink_noise(length: int, random: RandomState) -> Signal:
    """Draw noise of about equal power in each octave: held random numbers, one rate an octave."""
    noise = np.zeros(length)
    for octave in range(9):
        steps = random.randint(-4096, 4097, size=(length >> octave) + 1)
        noise += np.repeat(steps, 1 << octave)[:length]
    return noise


def add_noise(signal: Signal, snr_db: float, random: RandomState) -> Signal:
    """Add pink noise ``snr_db`` decibels below the signal's mean power."""
    noise = pink_noise(len(signal), random)
    gain = rms(signal) / rms(noise) * 10.0 ** (-snr_db / 20)
    return signal + np.rint(noise * (round(gain * _GAIN_ONE) / _GAIN_ONE))


def rms(signal: Signal) -> float:
    """Root of the mean square."""
    return math.sqrt(float(np.sum(signal * signal)) / len(signal))


def to_int16(signal: Signal, peak: int) -> NDArray[np.int16]:
    """Scale ``signal`` so that its largest magnitude is ``peak`` (1 to 32767), as int16."""
    largest = float(np.max(np.abs(signal)))
    return np.rint(signal * (peak / largest)).astype(np.int16)
