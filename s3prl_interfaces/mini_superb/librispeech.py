"""Sentences read aloud, in the layout of LibriSpeech."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.random import RandomState
from numpy.typing import NDArray
from tqdm import tqdm

from s3prl_interfaces.mini_superb import acoustics, corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.pronunciations import write_lexicon
from s3prl_interfaces.mini_superb.sentences import sentences, words_of
from s3prl_interfaces.mini_superb.speakers import Speaker, endless, make_speakers, record

NAME = "librispeech"
DIRECTORY = "LibriSpeech"
VERSION = 1
"""Raised whenever the same seed gives other samples or texts."""

LEXICON = "lexicon.txt"
"""How each word is pronounced. LibriSpeech comes without it; phone recognition needs one."""

_TRAIN = "train-clean-100"
_UTTERANCES = {_TRAIN: 600, "dev-clean": 80, "test-clean": 80}
_VOICES = {_TRAIN: "train", "dev-clean": "valid", "test-clean": "test"}
_FEWEST = {_TRAIN: 16, "dev-clean": 2, "test-clean": 2}
_CHAPTER_UTTERANCES = 10  # of one chapter, at most
_WORDS = range(3, 10)  # of one sentence: short ones make training cheap
_STREAM = 30001  # sets this corpus's random numbers apart from another's


class _Utterance(NamedTuple):
    split: str
    speaker: Speaker
    chapter: int
    number: int  # in its chapter
    text: str
    random: RandomState

    @property
    def name(self) -> str:
        return f"{self.speaker.id}-{self.chapter}-{self.number:04}"


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    utterances = list(_plan(seed, scale))
    transcripts: dict[Path, list[str]] = {}
    with Espeak() as espeak, tqdm(total=len(utterances), desc=NAME, unit="flac", disable=None) as progress:
        for one in utterances:
            chapter = folder / one.split / one.speaker.id / str(one.chapter)
            _write_flac(chapter / f"{one.name}.flac", record(espeak, one.speaker, one.text, one.random))
            words = " ".join(words_of(one.text))
            lines = transcripts.setdefault(chapter / f"{one.speaker.id}-{one.chapter}.trans.txt", [])
            lines.append(f"{one.name} {words}\n")
            progress.update()
    for path, lines in transcripts.items():
        path.write_bytes("".join(lines).encode())
    write_lexicon(folder / LEXICON)


def _plan(seed: int, scale: float) -> Iterator[_Utterance]:
    """Deal sentences to each split's speakers by turns, then give them speaker by speaker, chapter by chapter."""
    # Also at another scale, a speaker keeps number and voice.
    numbers = iter(sorted(RandomState([seed, _STREAM]).permutation(8000)[:200] + 100))
    heard: set[str] = set()  # words of training
    for index, split in enumerate(_UTTERANCES):
        random = RandomState([seed, _STREAM, index])
        speakers = [
            # Americans, as most of LibriSpeech's readers are, and as the pronunciations are.
            replace(one, id=str(next(numbers)), accent="gmw/en-US")
            for one in make_speakers(_VOICES[split], random)
        ]
        texts = sentences(random)
        chosen: list[str] = []
        while len(chosen) < max(_FEWEST[split], round(_UTTERANCES[split] * scale)):
            text = next(texts)
            words = words_of(text)
            fits = not _reserved(text) if split == _TRAIN else _reserved(text) and heard.issuperset(words)
            if len(words) in _WORDS and fits:
                chosen.append(text)
        if split == _TRAIN:
            heard = {word for text in chosen for word in words_of(text)}
        turns = endless(range(len(speakers)), random)
        deals = sorted(((next(turns), number) for number in range(len(chosen))), key=lambda deal: deal[0])
        said = [0] * len(speakers)
        for turn, number in deals:
            chapter, line = divmod(said[turn], _CHAPTER_UTTERANCES)
            said[turn] += 1
            yield _Utterance(
                split=split,
                speaker=speakers[turn],
                chapter=int(speakers[turn].id) * 17 + chapter,
                number=line,
                text=chosen[number],
                random=RandomState([seed, _STREAM, index, number]),
            )


def _reserved(text: str) -> bool:
    """Whether a sentence is for evaluation alone: one in five is."""
    return zlib.crc32(text.encode()) % 5 == 0


def _write_flac(path: Path, samples: NDArray[np.int16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, acoustics.SAMPLE_RATE, format="FLAC", subtype="PCM_16")
