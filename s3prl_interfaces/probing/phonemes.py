"""Sentences of synthetic speakers with the phoneme of each frame.

eSpeak NG knows when each phoneme starts, so there is no aligner and no alignment error. A frame's phoneme is the one
at the frame's centre.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from tqdm import tqdm

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.mini_superb.espeak import Espeak, Phoneme
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.mini_superb.speakers import make_speakers, record_aligned
from s3prl_interfaces.probing.data import HOP, WINDOW, ProbeTask, Utterance, frame_count

SILENCE = "_"
CLASSES = (
    *(SILENCE, "p", "b", "t", "d", "k", "g", "tS", "dZ", "f", "v", "T", "D", "s", "z", "S", "h", "m", "n", "N"),
    *("l", "r", "w", "j", "I", "i", "E", "a", "A", "0", "O", "U", "u", "V", "@", "3", "eI", "aI", "oU", "aU"),
    *("i@", "e@"),
)
"""What is told apart: eSpeak NG's mnemonics without stress and length, as folded by :func:`fold`."""

# Stressed and unstressed, long and short, and an accent's own variant of a phoneme are one class, as in the usual
# folding of TIMIT's 61 phones into 39 (Lee and Hon 1989).
_FOLDED = {
    ";": "j",  # the glide of "the old"
    "t#": "t",
    "t2": "t",
    "t[": "t",
    "w#": "w",
    "r-": "r",
    "@L": "l",
    "I#": "I",
    "I2": "I",
    "i:": "i",
    "aa": "a",
    "A:": "A",
    "A@": "A",
    "O:": "O",
    "O2": "O",
    "O@": "O",
    "o@": "O",
    "U@": "U",
    "u:": "u",
    "VR": "V",
    "@2": "@",
    "@5": "@",
    "a#": "@",
    "IR": "@",
    "3": "@",  # unstressed, as in "winter"; the stressed one of "bird" is 3:
    "3:": "3",
    "aI2": "aI",
    "aI@": "aI",
    "i@3": "i@",
}

_SENTENCES = {"train": 264, "test": 132}  # some 40,000 and 20,000 frames
_STREAM = 5003  # sets these random numbers apart from a corpus's


def fold(mnemonic: str) -> str:
    """Give the class of a mnemonic of eSpeak NG's English voices.

    Raises:
        ValueError: If it has none.
    """
    name = mnemonic.lstrip("',")
    name = SILENCE if name.startswith("_") else _FOLDED.get(name, name)
    if name not in CLASSES:
        raise ValueError(f"The phoneme {mnemonic!r} of eSpeak NG has no class.")
    return name


def frame_labels(phonemes: Sequence[Phoneme], samples: int) -> NDArray[np.int64]:
    """Give each frame the phoneme at its centre.

    Args:
        phonemes: In the order of their starts, samples at 16 kHz; before the first is silence.
        samples: Length of the utterance, at least :data:`WINDOW`.

    Returns:
        Indices into :data:`CLASSES`, ``(1 + (samples - 400) // 320,)``.
    """
    centres = np.arange(frame_count(samples)) * HOP + WINDOW // 2
    starts = np.array([phoneme.start for phoneme in phonemes])
    classes = np.array([CLASSES.index(name) for name in (SILENCE, *(fold(phoneme.name) for phoneme in phonemes))])
    return classes[np.searchsorted(starts, centres, side="right")]


def phoneme_task(seed: int = 0, scale: float = 1.0) -> ProbeTask:
    """Record the sentences; no speaker, voice, room or sentence is in both splits.

    Args:
        seed: Seed of everything random.
        scale: Size relative to the usual one, 264 sentences of 24 speakers and 132 of 6 others.

    Raises:
        ConfigError: If the scale is out of range.
        UserError: If the extra ``mini`` is not installed.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(f"The scale must be above 0, not {scale}.")
    counts = {split: max(2, round(count * scale)) for split, count in _SENTENCES.items()}
    texts = sentences(RandomState([seed, _STREAM]))
    train = list(islice(texts, counts["train"]))
    seen = set(train)
    test = list(islice((text for text in texts if text not in seen), counts["test"]))
    splits: dict[str, list[Utterance]] = {"train": [], "test": []}
    with Espeak() as espeak, tqdm(total=sum(counts.values()), desc="phoneme: data", unit="wav", disable=None) as bar:
        for split, lines in (("train", train), ("test", test)):
            for utterance in _record(espeak, split, lines, seed):
                splits[split].append(utterance)
                bar.update()
    return ProbeTask("phoneme", "frames", CLASSES, splits["train"], splits["test"])


def _record(espeak: Espeak, split: str, texts: Sequence[str], seed: int) -> Iterator[Utterance]:
    number = sorted(_SENTENCES).index(split)
    speakers = make_speakers(split, RandomState([seed, _STREAM, number]))
    for index, text in enumerate(texts):
        speaker = speakers[index % len(speakers)]
        samples, phonemes = record_aligned(espeak, speaker, text, RandomState([seed, _STREAM, number, index]))
        yield Utterance(samples, frame_labels(phonemes, len(samples)), speaker.id)
