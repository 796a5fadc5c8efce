"""Speakers: a voice, a way of speaking and a room each, unlike one another and the same for a seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from s3prl_interfaces.mini_superb import acoustics
from s3prl_interfaces.mini_superb.espeak import SAMPLE_RATE, Espeak, Phoneme

ACCENTS = {
    "gmw/en-US": "English (United States)",
    "gmw/en-US-nyc": "English (New York City)",
    "gmw/en": "English (Great Britain)",
    "gmw/en-GB-x-rp": "English (Received Pronunciation)",
    "gmw/en-GB-x-gbclan": "English (Lancaster)",
    "gmw/en-GB-x-gbcwmd": "English (West Midlands)",
    "gmw/en-GB-scotland": "English (Scotland)",
    "gmw/en-029": "English (Caribbean)",
}
"""eSpeak NG's English voices and what they are."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
"""Characters of identifiers."""

# eSpeak NG's voice variants that sound like a person. No variant is in two splits, so where speakers are made by
# split, an evaluation split has voices that training has not heard.
_VARIANTS = {
    "train": {
        "male": "m1 m2 m3 m4 m5 m7 Alex Denis Diogo Gene Mike adam croak max robert",
        "female": "f1 f2 f3 Annie aunty belinda grandma shelby steph",
    },
    "valid": {"male": "m6 Andy paul", "female": "f4 Alicia"},
    "test": {"male": "m8 Lee quincy victor", "female": "f5 anika"},
}

_PITCHES = (35, 66)
_PITCH_RANGES = (40, 71)
_RATES = (135, 191)


@dataclass(frozen=True)
class Speaker:
    """A speaker: everything about the sound that stays the same from utterance to utterance.

    Attributes:
        id: The corpus's name for the speaker; 16 letters and digits at first.
        gender: ``"male"`` or ``"female"``.
        accent: A key of :data:`ACCENTS`.
        variant: An eSpeak NG voice variant.
        pitch: Base pitch, 0 to 99.
        pitch_range: Liveliness of the intonation, 0 to 99.
        rate: Words a minute.
        room: Echoes of the speaker's room.
        snr_db: Signal-to-noise ratio in the speaker's room, decibels.
    """

    id: str
    gender: str
    accent: str
    variant: str
    pitch: int
    pitch_range: int
    rate: int
    room: acoustics.Room
    snr_db: int


def make_speakers(split: str | None, random: RandomState) -> list[Speaker]:
    """Make speakers, one for each voice variant.

    Args:
        split: ``"train"`` (24 speakers), ``"valid"`` (5) or ``"test"`` (6); None for all voice variants (35).
        random: Source of all that is drawn.

    Returns:
        The speakers, in random order.
    """
    tables = list(_VARIANTS.values()) if split is None else [_VARIANTS[split]]
    voices = [(gender, name) for table in tables for gender, names in table.items() for name in names.split()]
    accents = shuffled(list(ACCENTS), random)
    return [
        Speaker(
            id=draw_id(random, 16),
            gender=gender,
            accent=accents[index % len(accents)],
            variant=variant,
            pitch=int(random.randint(*_PITCHES)),
            pitch_range=int(random.randint(*_PITCH_RANGES)),
            rate=int(random.randint(*_RATES)),
            room=acoustics.draw_room(random),
            snr_db=int(random.randint(18, 36)),
        )
        for index, (gender, variant) in enumerate(shuffled(voices, random))
    ]


def make_sibling(speaker: Speaker, random: RandomState) -> Speaker:
    """Make a speaker of the same voice variant with another accent, pitch and way of speaking."""
    accents = [accent for accent in ACCENTS if accent != speaker.accent]
    lowest, end = _PITCHES
    step = int(random.randint(8, end - lowest - 7))  # at least 8 apart, also when it wraps around
    return replace(
        speaker,
        accent=accents[random.randint(len(accents))],
        pitch=lowest + (speaker.pitch - lowest + step) % (end - lowest),
        pitch_range=int(random.randint(*_PITCH_RANGES)),
        rate=int(random.randint(*_RATES)),
    )


def record(espeak: Espeak, speaker: Speaker, text: str, random: RandomState) -> NDArray[np.int16]:
    """Record ``speaker`` saying ``text``, slightly differently each time.

    Args:
        espeak: The synthesiser.
        speaker: Who speaks.
        text: What is said.
        random: Source of all that differs from one recording to the next.

    Returns:
        Samples ``(time,)``, int16, at 16000 Hz.
    """
    manner = _manner(speaker, random)
    samples, _ = _in_the_room(speaker, espeak.speak(text, **manner), random)
    return samples


def record_aligned(
    espeak: Espeak, speaker: Speaker, text: str, random: RandomState
) -> tuple[NDArray[np.int16], list[Phoneme]]:
    """Record as :func:`record`, the same samples, and say when each phoneme starts.

    Args:
        espeak: The synthesiser.
        speaker: Who speaks.
        text: What is said.
        random: Source of all that differs from one recording to the next.

    Returns:
        Samples ``(time,)``, int16, at 16000 Hz, and the phonemes with their starts in these samples. The room's
        silence comes before the first; the last is a pause.
    """
    manner = _manner(speaker, random)
    dry, phonemes = espeak.align(text, **manner)
    samples, before = _in_the_room(speaker, dry, random)
    return samples, [Phoneme(before + start * acoustics.SAMPLE_RATE // SAMPLE_RATE, name) for start, name in phonemes]


def _manner(speaker: Speaker, random: RandomState) -> dict[str, Any]:
    """Draw how ``speaker`` speaks this time: arguments of :meth:`Espeak.speak`."""
    return {
        "voice": f"{speaker.accent}+{speaker.variant}",
        "rate": speaker.rate + int(random.randint(-10, 11)),
        "pitch": speaker.pitch + int(random.randint(-4, 5)),
        "pitch_range": speaker.pitch_range + int(random.randint(-8, 9)),
        "seed": int(random.randint(0, 1 << 31, dtype=np.int64)),
    }


def _in_the_room(speaker: Speaker, dry: NDArray[np.int16], random: RandomState) -> tuple[NDArray[np.int16], int]:
    """Play ``dry`` (22050 Hz) in the speaker's room; give the samples (16000 Hz) and how many precede the speech."""
    before, after = (int(samples) for samples in random.randint(800, 4800, size=2))  # 0.05 to 0.3 s
    wet = acoustics.add_room(np.pad(acoustics.resample(dry), (before, after)), speaker.room)
    noisy = acoustics.add_noise(wet, speaker.snr_db + int(random.randint(-3, 4)), random)
    return acoustics.to_int16(noisy, peak=int(random.randint(5000, 26000))), before


def shuffled(items: Sequence, random: RandomState) -> list:
    """Copy ``items`` in random order."""
    return [items[index] for index in random.permutation(len(items))]


def endless(items: Sequence, random: RandomState) -> Iterator:
    """Deal all items in random order, then all again in another, without end."""
    while True:
        yield from shuffled(items, random)


def draw_id(random: RandomState, length: int, letters: str = LETTERS) -> str:
    """Draw an identifier of ``length`` characters out of ``letters``."""
    return "".join(letters[index] for index in random.randint(0, len(letters), size=length))
