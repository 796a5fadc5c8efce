"""Read utterances as S3PRL's upstreams want them: one channel, 16 kHz, float32."""

import logging
import math
import multiprocessing
import random
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio

from s3prl_interfaces.errors import DataError

log = logging.getLogger(__name__)

SAMPLE_RATE = 16000
MIN_SAMPLES = 400
"""One frame of 25 ms: speech models refuse less."""
_RATES = range(1000, 768_001)
_MOST_TAPS = 1 << 27
"""Of a resampling filter, which has one for each pair of samples before both rates meet again: 2 GB, 5 s a file."""
NO_LENGTH = "its header does not say how long it is, or claims more than memory holds: convert it with another program"

# Shared with the loader's worker processes, so that a whole corpus of another rate is mentioned once.
_told_rate = multiprocessing.Value("b", 0)
_told_channels = multiprocessing.Value("b", 0)


def load_audio(path: Path) -> np.ndarray:
    """Read one audio file.

    Another sample rate is resampled and several channels are averaged; either is said once.

    Returns:
        (samples,) float32 at 16 kHz, in [-1, 1].

    Raises:
        DataError: the file is missing, cannot be decoded, has a rate that cannot be resampled or samples that are no
            finite numbers, or is shorter than one frame (25 ms).
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, ValueError, MemoryError) as error:  # soundfile's own errors are RuntimeErrors
        raise unreadable(path, error) from error
    if len(samples) * SAMPLE_RATE < MIN_SAMPLES * rate:
        raise DataError(f"Audio file {path} has {len(samples)} samples at {rate} Hz, less than one frame of 25 ms.")
    if samples.shape[1] > 1:
        _tell_once(_told_channels, "%s has %d channels: they are averaged, here and below.", path, samples.shape[1])
    wav = samples.mean(axis=1)
    if rate != SAMPLE_RATE:
        check_rate(path, rate)
        _tell_once(_told_rate, "%s has %d samples a second: resampled to 16000, here and below.", path, rate)
        wav = torchaudio.functional.resample(torch.from_numpy(wav), rate, SAMPLE_RATE).numpy()
    if not np.isfinite(wav).all():
        raise DataError(f"Audio file {path} has samples that are no finite numbers (NaN or infinite).")
    return wav


def unreadable(path: Path, error: Exception) -> DataError:
    """What to raise where soundfile could not read a file."""
    try:
        missing = not path.exists()
    except OSError:  # a name that the disk cannot have
        missing = False
    if missing:
        reason = "it does not exist"
    else:
        reason = NO_LENGTH if isinstance(error, (ValueError, MemoryError)) else str(error)
    return DataError(f"Audio file {path} cannot be read: {reason}.")


def check_rate(path: Path, rate: int) -> None:
    """Refuse a file of a sample rate that would take gigabytes to resample.

    Raises:
        DataError: it has one.
    """
    shared = math.gcd(rate, SAMPLE_RATE)
    if rate not in _RATES or (rate // shared) * (SAMPLE_RATE // shared) > _MOST_TAPS:
        raise DataError(
            f"Audio file {path} has {rate} samples a second, which cannot be resampled to {SAMPLE_RATE} here: convert "
            "it with another program."
        )


class RandomPiece(np.ndarray):
    """Samples that were drawn at random: another epoch has others, so what an upstream says of them is not kept."""


def random_piece(wav: np.ndarray, samples: int) -> np.ndarray:
    """Cut ``samples`` samples from a random place of an utterance that is longer; others are given whole.

    Python's generator and bounds, as S3PRL: the same seed crops the same piece.
    """
    if len(wav) <= samples:
        return wav
    start = random.randint(0, len(wav) - samples)
    return wav[start : start + samples].view(RandomPiece)


def _tell_once(told: Any, message: str, *details: object) -> None:
    with told.get_lock():
        if not told.value:
            told.value = 1
            log.warning(message, *details)
