"""Spoken intents in the layout of Fluent Speech Commands."""

import uuid
from pathlib import Path
from typing import NamedTuple

from numpy.random import RandomState
from tqdm import tqdm

from s3prl_interfaces.mini_superb import corpus
from s3prl_interfaces.mini_superb.espeak import Espeak
from s3prl_interfaces.mini_superb.intents import Intent, wordings
from s3prl_interfaces.mini_superb.speakers import ACCENTS, Speaker, endless, make_speakers, record

NAME = "fluent_speech_commands"
DIRECTORY = "fluent_speech_commands_dataset"
VERSION = 1
"""Raised whenever the same seed gives other bytes."""

_UTTERANCES = {"train": 1344, "valid": 250, "test": 348}
_HEADER = ("", "path", "speakerId", "transcription", "action", "object", "location")
_DEMOGRAPHICS = (
    "speakerId",
    "Self-reported fluency level ",  # the space is the corpus's own
    "First Language spoken",
    "Current language used for work/school",
    "gender",
    "ageRange",
)


class _Utterance(NamedTuple):
    speaker: Speaker
    intent: Intent
    text: str


def make(root: Path, *, seed: int, scale: float) -> Path:
    """Make the corpus in ``root / DIRECTORY``; see :func:`s3prl_interfaces.mini_superb.make_mini_superb`."""
    target = root / DIRECTORY
    parameters = {"corpus": NAME, "version": VERSION, "seed": seed, "scale": scale}
    corpus.build(target, parameters, lambda folder: _write(folder, seed, scale))
    return target


def _write(folder: Path, seed: int, scale: float) -> None:
    splits = {
        # A stream of its own for each split: another size of one leaves the others as they are.
        split: _plan(split, _count(split, scale), RandomState([seed, index]))
        for index, split in enumerate(_UTTERANCES)
    }
    speakers: dict[str, Speaker] = {}
    total = sum(map(len, splits.values()))
    with Espeak() as espeak, tqdm(total=total, desc=NAME, unit="wav", disable=None) as progress:
        for index, (split, utterances) in enumerate(splits.items()):
            rows = []
            for number, utterance in enumerate(utterances):
                random = RandomState([seed, index, number])
                speaker = utterance.speaker
                speakers[speaker.id] = speaker
                name = uuid.UUID(bytes=random.bytes(16), version=4)
                path = f"wavs/speakers/{speaker.id}/{name}.wav"
                corpus.write_wav(folder / path, record(espeak, speaker, utterance.text, random))
                rows.append((number, path, speaker.id, utterance.text, *utterance.intent))
                progress.update()
            corpus.write_csv(folder / "data" / f"{split}_data.csv", _HEADER, rows)
    corpus.write_csv(
        folder / "data" / "speaker_demographics.csv",
        _DEMOGRAPHICS,
        # The corpus's own vocabulary for fluency and age; a synthesiser has neither.
        [
            (one.id, "native", ACCENTS[one.accent], ACCENTS[one.accent], one.gender, "22-40")
            for one in speakers.values()
        ],
    )


def _count(split: str, scale: float) -> int:
    # Training always has all intents, so every value of an evaluation split is known from it.
    fewest = len(wordings()) if split == "train" else 1
    return max(fewest, round(_UTTERANCES[split] * scale))


def _plan(split: str, count: int, random: RandomState) -> list[_Utterance]:
    """Deal intents, wordings and speakers evenly, then sort by speaker as the corpus is."""
    speakers = make_speakers(split, random)
    texts = {intent: endless(lines, random) for intent, lines in wordings().items()}
    intents = endless(list(texts), random)
    turns = endless(range(len(speakers)), random)
    deals = [(next(turns), next(intents)) for _ in range(count)]
    return [
        _Utterance(speakers[turn], intent, next(texts[intent]))
        for turn, intent in sorted(deals, key=lambda deal: deal[0])
    ]
