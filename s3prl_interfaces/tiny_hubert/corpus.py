"""The speech that tiny_hubert learns from, one array of samples: synthetic voices, and recordings if there are any."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import soundfile
import torch
import torchaudio
from numpy.typing import NDArray
from tqdm import tqdm

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.mini_superb.espeak import SAMPLE_RATE as ESPEAK_RATE
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.speakers import ACCENTS
from s3prl_interfaces.tiny_hubert.texts import LANGUAGES, draw_english, draw_names
from s3prl_interfaces.tiny_hubert.voices import draw_variant

SAMPLE_RATE = 16000
HOP = 320
"""Samples from a frame of the network to the next."""
WINDOW = 400
"""Samples that a frame is made of, before the transformer looks around."""
_VOICES = 1000
_ENGLISH = 0.6  # share of the synthetic utterances
_LONGEST = 15.6  # seconds of a recording that are used at a time, as HuBERT's 250,000 samples
_SHORTEST = 1.0
_SUFFIXES = (".flac", ".mp3", ".ogg", ".opus", ".wav")


@dataclass(frozen=True)
class Corpus:
    """Utterances one behind another.

    Attributes:
        samples: ``(time,)``, int16, at 16 kHz: all utterances.
        ends: ``(utterances,)``: where each one ends in ``samples``; the next begins there.
    """

    samples: NDArray[np.int16]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def hours(self) -> float:
        """Length of all utterances together."""
        return len(self.samples) / SAMPLE_RATE / 3600

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Samples of each utterance."""
        return np.diff(self.ends, prepend=0)

    def wav(self, index: int) -> torch.Tensor:
        """An utterance ``(time,)``, float32, -1 to 1."""
        start = self.ends[index - 1] if index else 0
        return torch.from_numpy(self.samples[start : self.ends[index]].astype(np.float32) / 32768)


def make_corpus(hours: float, recordings: Path | None, seed: int) -> Corpus:
    """Make the synthetic speech, and read the recordings.

    Args:
        hours: How much synthetic speech.
        recordings: A folder of audio files, searched with its subfolders, whose speech is added; any rate, any
            number of channels.
        seed: Of texts and voices.

    Raises:
        UserError: The synthesiser is not installed, or the folder holds no audio that can be read.
    """
    parts = list(_synthetic(hours, seed))
    if recordings is not None:
        recorded = list(_recorded(recordings))
        if not recorded:
            raise UserError(f"--recordings {recordings}: no file there is as long as {_SHORTEST} s.")
        parts += recorded
    return Corpus(np.concatenate(parts), np.cumsum([len(part) for part in parts]))


def _synthetic(hours: float, seed: int) -> Iterator[NDArray[np.int16]]:
    random = Random(seed)
    voices = [draw_variant("own", random) for _ in range(_VOICES)]
    resample = torchaudio.transforms.Resample(ESPEAK_RATE, SAMPLE_RATE)
    wanted, made = hours * 3600, 0.0
    with Espeak() as espeak, tqdm(total=round(wanted), desc="speech", unit="s", disable=None) as progress:
        while made < wanted:
            language, text = _line(random)
            espeak.define_variant("own", random.choice(voices))
            dry = espeak.speak(
                text,
                f"{language}+own",
                rate=random.randint(120, 230),
                pitch=random.randint(30, 70),
                pitch_range=random.randint(30, 75),
                seed=random.randrange(1 << 31),
            )
            wav = resample(torch.from_numpy(dry.astype(np.float32)))
            silence = (random.randint(0, 8000), random.randint(0, 8000))
            yield np.pad(wav.round().clamp(-32768, 32767).to(torch.int16).numpy(), silence)
            seconds = (len(wav) + sum(silence)) / SAMPLE_RATE
            made += seconds
            progress.update(seconds)


def _line(random: Random) -> tuple[str, str]:
    if random.random() < _ENGLISH:
        return random.choice(sorted(ACCENTS)), draw_english(random)
    language = random.choice(sorted(LANGUAGES))
    return language, draw_names(LANGUAGES[language], random)


def _recorded(folder: Path) -> Iterator[NDArray[np.int16]]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UserError(f"--recordings {folder}: no audio file ({', '.join(_SUFFIXES)}) in that folder.")
    for path in tqdm(paths, desc="recordings", unit="file", disable=None):
        try:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except (OSError, soundfile.LibsndfileError) as error:
            raise UserError(f"--recordings: {path} cannot be read: {error}. Take it out of the folder.") from error
        wav = torchaudio.functional.resample(torch.from_numpy(samples.mean(axis=1)), rate, SAMPLE_RATE)
        yield from _pieces((wav.clamp(-1, 1) * 32767).to(torch.int16).numpy())


def _pieces(samples: NDArray[np.int16]) -> Iterator[NDArray[np.int16]]:
    step = round(_LONGEST * SAMPLE_RATE)
    for start in range(0, len(samples), step):
        piece = samples[start : start + step]
        if len(piece) >= _SHORTEST * SAMPLE_RATE:
            yield piece


class Crop(NamedTuple):
    """A piece of an utterance: which one, where it begins and how long it is, in samples."""

    utterance: int
    start: int
    length: int


def draw_batches(corpus: Corpus, size: int, longest: int, random: Random) -> Iterator[list[Crop]]:
    """Deal the utterances of an epoch into batches of one length each, as fairseq's HuBERT does: there is no padding.

    Args:
        corpus: The speech.
        size: Utterances a batch.
        longest: Most samples of a crop.
        random: Source of order and crops.

    Raises:
        UserError: There are fewer utterances than a batch has.
    """
    if len(corpus) < size:
        raise UserError(f"{len(corpus)} utterances are too few for a batch of {size}: make more speech.")
    lengths = corpus.lengths
    # Shuffled before a stable sort: among equally long ones, and most are longer than a crop, chance decides.
    order = random.sample(range(len(corpus)), len(corpus))
    order.sort(key=lambda index: min(lengths[index], longest))
    batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
    random.shuffle(batches)
    for batch in batches:
        length = int(min(longest, *(lengths[index] for index in batch)))
        # On the grid of frames, so that labels made of the whole utterance are those of the crop.
        yield [Crop(index, HOP * random.randint(0, int(lengths[index] - length) // HOP), length) for index in batch]


def endless_batches(corpus: Corpus, size: int, longest: int, random: Random) -> Iterator[list[Crop]]:
    """Epoch after epoch of :func:`draw_batches`."""
    while True:
        yield from draw_batches(corpus, size, longest, random)


def crops(corpus: Corpus, batch: Sequence[Crop]) -> torch.Tensor:
    """The samples of crops of one length, ``(batch, time)``."""
    return torch.stack([corpus.wav(crop.utterance)[crop.start : crop.start + crop.length] for crop in batch])
