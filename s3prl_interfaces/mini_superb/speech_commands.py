"""Single words to spot, in the layout of Speech Commands v0.01 and its test set."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from tqdm import tqdm

from downstream_tasks.ks.dataset import KEYWORDS, NOISE, SILENCE, UNKNOWN, split_of
from s3prl_interfaces.mini_superb import acoustics, corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.speakers import Speaker, draw_id, make_speakers, record

NAME = "speech_commands"
DIRECTORY = "speech_commands"
VERSION = 1
"""Raised whenever the same seed gives other bytes."""

TRAIN, TEST = "speech_commands_v0.01", "speech_commands_test_set_v0.01"
"""Its two folders, named as the archives of Speech Commands."""

_OTHERS = ("bird", "cat", "eight", "four", "happy", "marvin", "nine", "tree")
_WORDS = (*KEYWORDS, *_OTHERS)
_VOICES = {"train": "train", "dev": "valid", "unused": "test"}
_CLIPS = {"train": 36, "dev": 6, "unused": 17}  # of each word, and, for the test set, of each class
_NOISES = ("exercise_bike", "mains_hum", "pink_noise", "running_tap", "white_noise")
_NOISE_SECONDS = range(6, 10)
_SECOND = acoustics.SAMPLE_RATE
_STREAM = 50001  # sets this corpus's random numbers apart from another's


class _Clip(NamedTuple):
    """A word that is said once, and the files that hold it."""

    word: str
    speaker: Speaker
    files: list[str]
    random: RandomState


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    clips = list(_plan(seed, scale))
    with Espeak() as espeak, tqdm(total=len(clips), desc=NAME, unit="wav", disable=None) as progress:
        for clip in clips:
            samples = _loudest_second(record(espeak, clip.speaker, clip.word, clip.random))
            for file in clip.files:
                corpus.write_wav(folder / file, samples)
            progress.update()
    for index, name in enumerate(_NOISES):
        random = RandomState([seed, _STREAM, 1, index])
        seconds = int(random.randint(_NOISE_SECONDS.start, _NOISE_SECONDS.stop))
        corpus.write_wav(folder / TRAIN / NOISE / f"{name}.wav", _noise(name, seconds * _SECOND, random))
    for number in range(_count("unused", scale)):
        random = RandomState([seed, _STREAM, 2, number])
        samples = _noise(_NOISES[number % len(_NOISES)], _SECOND, random)
        corpus.write_wav(folder / TEST / SILENCE / f"{number}.wav", samples)


def _count(split: str, scale: float) -> int:
    return max(1, round(_CLIPS[split] * scale))


def _plan(seed: int, scale: float) -> Iterator[_Clip]:
    """Let the speakers of each split say each word by turns."""
    for number, split in enumerate(_VOICES):
        speakers = _draw_speakers(split, RandomState([seed, _STREAM, 0, number]))
        for index, word in enumerate(_WORDS):
            for turn in range(_count(split, scale)):
                speaker = speakers[(turn + index) % len(speakers)]
                name = f"{speaker.id}_nohash_{turn}.wav"
                files = [f"{TRAIN}/{word}/{name}"]
                if split == "unused":
                    label = word if word in KEYWORDS else UNKNOWN
                    if label == UNKNOWN and _OTHERS[turn % len(_OTHERS)] != word:
                        continue  # of the other words, the test set has as many clips together as of one keyword
                    files.append(f"{TEST}/{label}/{name}")
                # A stream of its own for each clip: another scale leaves its sound as it is.
                yield _Clip(word, speaker, files, RandomState([seed, _STREAM, 0, number, index, turn]))


def _draw_speakers(split: str, random: RandomState) -> list[Speaker]:
    """Draw speakers whose names put them in a split; no voice is in two splits."""
    return [replace(speaker, id=_draw_name(split, random)) for speaker in make_speakers(_VOICES[split], random)]


def _draw_name(split: str, random: RandomState) -> str:
    """Draw eight hexadecimal digits until the corpus's rule puts them in the split."""
    while True:
        name = draw_id(random, 8, "0123456789abcdef")
        if split_of(f"{name}_nohash_0.wav") == split:
            return name


def _loudest_second(samples: NDArray[np.int16]) -> NDArray[np.int16]:
    """Cut a recording as Speech Commands' clips were cut; a shorter one stays as it is."""
    if len(samples) <= _SECOND:
        return samples
    energy = np.concatenate([[0], np.cumsum(samples.astype(np.int64) ** 2)])
    start = int(np.argmax(energy[_SECOND:] - energy[:-_SECOND]))
    return samples[start : start + _SECOND]


def _noise(name: str, length: int, random: RandomState) -> NDArray[np.int16]:
    """Make ``length`` samples of something that is not speech, louder or quieter."""
    white = random.randint(-4096, 4097, size=length).astype(np.float64)
    pink = acoustics.pink_noise(length, random)
    time = np.arange(length)
    if name == "exercise_bike":  # comes and goes, some twice a second
        period = int(random.randint(6000, 10000))
        signal = pink * np.abs(time % period - period // 2)
    elif name == "mains_hum":
        signal = np.rint(pink / 8) + sum(4096 * np.where(time % period < period // 2, 1, -1) for period in (320, 160))
    elif name == "running_tap":  # hisses, unsteadily
        flow = np.repeat(random.randint(4, 9, size=length // 400 + 1), 400)[:length]
        signal = (white - np.roll(white, 1)) * flow
    else:
        signal = pink if name == "pink_noise" else white
    return acoustics.to_int16(signal, peak=int(random.randint(1000, 12000)))
