"""Speakers: a voice, a way of speaking and a room each, unlike one another and the same for a seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray

from s3prl_interfaces.mini_superb import acoustics
from s3prl_interfaces.mini_superb.espeak import Espeak

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

# eSpeak NG's voice variants that sound like a person. No variant is in two splits, so an evaluation split has
# voices that training has not heard.
_VARIANTS = {
    "train": {
        "male": "m1 m2 m3 m4 m5 m7 Alex Denis Diogo Gene Mike adam croak max robert",
        "female": "f1 f2 f3 Annie aunty belinda grandma shelby steph",
    },
    "valid": {"male": "m6 Andy paul", "female": "f4 Alicia"},
    "test": {"male": "m8 Lee quincy victor", "female": "f5 anika"},
}


@dataclass(frozen=True)
class Speaker:
    """A speaker: everything about the sound that stays the same from utterance to utterance.

    Attributes:
        id: 16 letters and digits.
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


def make_speakers(split: str, random: RandomState) -> list[Speaker]:
    """Make the speakers of a split (``train``: 24, ``valid``: 5, ``test``: 6), one for each voice variant."""
    voices = [(gender, name) for gender, names in _VARIANTS[split].items() for name in names.split()]
    accents = shuffled(list(ACCENTS), random)
    return [
        Speaker(
            id=_draw_id(random),
            gender=gender,
            accent=accents[index % len(accents)],
            variant=variant,
            pitch=int(random.randint(35, 66)),
            pitch_range=int(random.randint(40, 71)),
            rate=int(random.randint(135, 191)),
            room=acoustics.draw_room(random),
            snr_db=int(random.randint(18, 36)),
        )
        for index, (gender, variant) in enumerate(shuffled(voices, random))
    ]


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
    dry = espeak.speak(
        text,
        f"{speaker.accent}+{speaker.variant}",
        rate=speaker.rate + int(random.randint(-10, 11)),
        pitch=speaker.pitch + int(random.randint(-4, 5)),
        pitch_range=speaker.pitch_range + int(random.randint(-8, 9)),
        seed=int(random.randint(0, 1 << 31, dtype=np.int64)),
    )
    before, after = (int(samples) for samples in random.randint(800, 4800, size=2))  # 0.05 to 0.3 s
    wet = acoustics.add_room(np.pad(acoustics.resample(dry), (before, after)), speaker.room)
    noisy = acoustics.add_noise(wet, speaker.snr_db + int(random.randint(-3, 4)), random)
    return acoustics.to_int16(noisy, peak=int(random.randint(5000, 26000)))


def shuffled(items: Sequence, random: RandomState) -> list:
    """Copy ``items`` in random order."""
    return [items[index] for index in random.permutation(len(items))]


def _draw_id(random: RandomState) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    return "".join(letters[index] for index in random.randint(0, len(letters), size=16))
