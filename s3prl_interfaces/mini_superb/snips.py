"""Requests with slots to fill, in the layout of Audio SNIPS."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from numpy.random import RandomState
from tqdm import tqdm

from downstream_tasks.sf.dataset import SPEAKERS, TRANSCRIPTS
from downstream_tasks.sf.prepare import SLOTS, write_slots
from s3prl_interfaces.mini_superb import corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.speakers import Speaker, make_speakers, record
from s3prl_interfaces.mini_superb.voice_requests import Request, requests

NAME = "snips"
DIRECTORY = "SNIPS"
VERSION = 1
"""Raised whenever the same seed gives other bytes."""

_REQUESTS = {"train": 240, "valid": 40, "test": 40}
_FEWEST = {"train": 4, "valid": 2, "test": 2}  # then each speaker says something
_STREAM = 40001  # sets this corpus's random numbers apart from another's


class _Utterance(NamedTuple):
    path: str
    speaker: Speaker
    text: str
    random: RandomState


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    splits = {
        # A stream of its own for each split: another size of one leaves the others as they are.
        split: list(islice(requests(RandomState([seed, _STREAM, index]), held_out=split != "train"), count))
        for index, (split, count) in enumerate(_sizes(scale).items())
    }
    utterances = list(_plan(splits, seed))
    with Espeak() as espeak, tqdm(total=len(utterances), desc=NAME, unit="wav", disable=None) as progress:
        for one in utterances:
            corpus.write_wav(folder / one.path, record(espeak, one.speaker, one.text, one.random))
            progress.update()
    (folder / TRANSCRIPTS).write_bytes("".join(_lines(splits)).encode())
    everything = [request for drawn in splits.values() for request in drawn]
    write_slots(folder / SLOTS, (label for request in everything for label in request.labels))


def _sizes(scale: float) -> dict[str, int]:
    """Give the number of requests in each split."""
    return {split: max(_FEWEST[split], round(count * scale)) for split, count in _REQUESTS.items()}


def _plan(splits: dict[str, list[Request]], seed: int) -> Iterator[_Utterance]:
    """Let two speakers of a split say each of its requests."""
    for index, (split, drawn) in enumerate(splits.items()):
        voices = make_speakers(split, RandomState([seed, _STREAM, index, 0]))
        for place, name in enumerate(SPEAKERS[split]):
            for number, request in enumerate(drawn):
                if _says(split, name, number):
                    yield _Utterance(
                        path=f"{split}/{name}-snips-{split}-{number}.wav",
                        # All Americans: with so few speakers, accents new to training would decide the score.
                        speaker=replace(voices[place], id=name, accent="gmw/en-US"),
                        text=" ".join(request.words),
                        # A stream of its own for each utterance: another scale leaves its sound as it is.
                        random=RandomState([seed, _STREAM, index, 1 + place, number]),
                    )


def _says(split: str, name: str, number: int) -> bool:
    """Whether one of a split's speakers says a request.

    Only two do: a training batch is of utterances that are alike in length, and should not be all the same words.
    """
    groups = len(SPEAKERS[split]) // 2
    return SPEAKERS[split].index(name) % groups == number % groups


def _lines(splits: dict[str, list[Request]]) -> Iterator[str]:
    """What is said: as in Audio SNIPS, speakers are also listed with the requests of splits that they are not in."""
    for split in ("test", "valid", "train"):
        for name in sorted(name for names in SPEAKERS.values() for name in names):
            for number, request in enumerate(splits[split]):
                if name not in SPEAKERS[split] or _says(split, name, number):
                    words, labels = " ".join(request.words).upper(), " ".join(request.labels)
                    yield f"{name}-snips-{split}-{number} BOS {words} EOS\tO {labels} {request.intent}\n"
