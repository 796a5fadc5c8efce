"""Speakers to identify and to verify, in the layout of VoxCeleb1."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import RandomState
from numpy.typing import NDArray
from tqdm import tqdm

from s3prl_interfaces.mini_superb import acoustics, corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.sentences import sentences
from s3prl_interfaces.mini_superb.speakers import (
    LETTERS,
    Speaker,
    draw_id,
    make_sibling,
    make_speakers,
    record,
    shuffled,
)

NAME = "voxceleb1"
DIRECTORY = "voxceleb1"
VERSION = 3
"""Raised whenever the same seed gives other bytes."""

METADATA = "veri_test_class.txt"
"""File that says which of SID's splits an utterance is in; the directories ``dev`` and ``test`` do not."""
TRIALS = {"dev": "dev_meta_data.txt", "test": "voxceleb1_test_v2.txt"}
"""Files of verification trials, lines ``<0|1> <wav> <wav>``: over some speakers of ``dev``, over all of ``test``."""

_SPEAKERS = 20
_UTTERANCES = {"train": 30, "dev": 6, "test": 8}  # of one speaker
_FEWEST = {"train": 2, "dev": 1, "test": 1}
_FEWEST_SPEAKERS = 4
_VIDEO_UTTERANCES = 5  # of one video, at most
_FIRST_ID = 10001
_STREAM = 10001  # sets this corpus's random numbers apart from another's
_PAUSES = 4  # one utterance in so many has one
# Largest gains, in 1/4096, of a microphone's 8 taps behind the direct one. The first makes it dull or sharp;
# others raise and lower parts of the spectrum, by some 3 dB. VoxCeleb has all kinds of microphones and codecs.
_MICROPHONE = (3277, *[1434] * 7)
_TRIAL_SPEAKERS = 3  # one speaker of `dev` in so many is in the dev trials


class _Video(NamedTuple):
    """A recording session: the speaker with the session's room, in which so many utterances are said."""

    split: str
    path: str
    speaker: Speaker
    texts: list[str]
    random: RandomState


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    videos = list(_plan(seed, scale))
    splits = {split: number for number, split in enumerate(_UTTERANCES, start=1)}
    lines = []
    tops: dict[str, list[str]] = {top: [] for top in TRIALS}
    total = sum(len(video.texts) for video in videos)
    with Espeak() as espeak, tqdm(total=total, desc=NAME, unit="wav", disable=None) as progress:
        for video in videos:
            for number, text in enumerate(video.texts, start=1):
                path = f"{video.path}/{number:05}.wav"
                samples = record(espeak, video.speaker, text, video.random)
                if not video.random.randint(_PAUSES):
                    samples = _with_pause(samples, video.random)
                corpus.write_wav(folder / _top(video.speaker) / "wav" / path, samples)
                lines.append((path, f"{splits[video.split]} {path}\n"))
                tops[_top(video.speaker)].append(path)
                progress.update()
    (folder / METADATA).write_bytes("".join(line for _, line in sorted(lines)).encode())
    for number, (top, name) in enumerate(TRIALS.items()):
        trials = _trials(_verified(top, tops[top]), RandomState([seed, _STREAM, number]))
        (folder / name).write_bytes("".join(f"{trial}\n" for trial in trials).encode())


def _sizes(scale: float) -> tuple[int, dict[str, int]]:
    """Give the number of speakers and that of one speaker's utterances in each split.

    Both grow with the square root of ``scale``, until there are no more voices.
    """
    siblings = 2 * len(make_speakers(None, RandomState(0)))
    speakers = min(siblings, max(_FEWEST_SPEAKERS, round(_SPEAKERS * math.sqrt(scale))))
    each = scale * _SPEAKERS / speakers
    return speakers, {split: max(_FEWEST[split], round(count * each)) for split, count in _UTTERANCES.items()}


def _plan(seed: int, scale: float) -> Iterator[_Video]:
    """Give each speaker videos of his own for each split."""
    count, utterances = _sizes(scale)
    for index, speaker in enumerate(_draw_speakers(count, RandomState([seed, _STREAM]))):
        for number, split in enumerate(_UTTERANCES):
            videos = -(-utterances[split] // _VIDEO_UTTERANCES)
            for video in range(videos):
                # A stream of its own for each video: another scale leaves its room as it is.
                random = RandomState([seed, _STREAM, index, number, video])
                name = draw_id(random, 11, LETTERS + "-_")
                there = _in_a_new_place(speaker, random)
                texts = list(islice(sentences(random), len(range(video, utterances[split], videos))))
                yield _Video(split, f"{speaker.id}/{name}", there, texts, random)


def _draw_speakers(count: int, random: RandomState) -> list[Speaker]:
    """Draw speakers, women and men by turns while there are both; each has a sibling, who is easily mistaken."""
    drawn = shuffled(make_speakers(None, random), random)
    genders = [[speaker for speaker in drawn if speaker.gender == gender] for gender in ("female", "male")]
    turns = [speaker for pair in zip_longest(*genders) for speaker in pair if speaker is not None]
    siblings = [speaker for one in turns for speaker in (one, make_sibling(one, random))]
    return [replace(speaker, id=f"id{_FIRST_ID + index}") for index, speaker in enumerate(siblings[:count])]


def _in_a_new_place(speaker: Speaker, random: RandomState) -> Speaker:
    """Move ``speaker`` to another room, noise and microphone; the voice stays."""
    room = acoustics.draw_room(random)
    taps = tuple(int(random.randint(-largest, largest + 1)) for largest in _MICROPHONE)
    return replace(
        speaker,
        room=acoustics.Room((*range(1, len(taps) + 1), *room.delays), (*taps, *room.gains)),
        snr_db=int(random.randint(3, 25)),
    )


def _with_pause(samples: NDArray[np.int16], random: RandomState) -> NDArray[np.int16]:
    """Mute ``samples`` for 0.12 to 0.4 s where they are quietest, as a noise gate or a cutter does.

    Rooms are too noisy for the silence that verification removes; this makes some.
    """
    blocks = np.abs(samples[: len(samples) // 160 * 160].astype(np.int64)).reshape(-1, 160).sum(axis=1)
    quarter = len(blocks) // 4
    place = 160 * (quarter + int(np.argmin(blocks[quarter:-quarter])))
    pause = np.zeros(int(random.randint(1920, 6401)), dtype=np.int16)
    return np.concatenate([samples[:place], pause, samples[place:]])


def _verified(top: str, paths: Sequence[str]) -> list[str]:
    """Give the utterances that the trials of a directory are over, of two speakers or more."""
    speakers = sorted({path.split("/")[0] for path in paths})
    chosen = speakers if top == "test" else speakers[: max(2, len(speakers) // _TRIAL_SPEAKERS)]
    return sorted(path for path in paths if path.split("/")[0] in chosen)


def _trials(paths: Sequence[str], random: RandomState) -> Iterator[str]:
    """Compare each utterance with another of its speaker and with one of another speaker."""
    speakers = {path: path.split("/")[0] for path in paths}
    for path in paths:
        for target in (1, 0):
            others = [one for one in paths if one != path and (speakers[one] == speakers[path]) == bool(target)]
            yield f"{target} {path} {others[random.randint(len(others))]}"


def _top(speaker: Speaker) -> str:
    """Give the directory of a speaker: two in five are under ``test``, whatever SID's split."""
    return "test" if int(speaker.id[2:]) % 5 in (3, 4) else "dev"
