"""IEMOCAP for emotion recognition: ``<meta_data>/SessionN/{train,test}_meta_data.json`` and the wavs that they name."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from downstream_tasks.audio import load_audio
from s3prl_interfaces.errors import DataError


@dataclass(frozen=True)
class Utterance:
    """One entry of the metadata."""

    path: Path
    emotion: str


class Emotions:
    """The emotions in the order of their ids."""

    slots = ("emotion",)

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = dict(ids)
        self.names = sorted(self.ids, key=self.ids.__getitem__)

    @property
    def sizes(self) -> list[int]:
        """One slot; neu, hap, ang and sad in SUPERB."""
        return [len(self.names)]

    def decode(self, ids: list[int]) -> tuple[str, ...]:
        """The emotion of one id."""
        return tuple(self.names[index] for index in ids)


def read_fold(metadata: Path, root: Path, fold: str, valid_ratio: float) -> tuple[dict[str, list[Utterance]], Emotions]:
    """The utterances of each split of a fold, and what their emotions are.

    Args:
        metadata: the folder that holds SessionN/{train,test}_meta_data.json.
        root: the folder that holds SessionN/sentences/wav.
        fold: ``foldN`` tests on session N.
        valid_ratio: which part of the other sessions is dev.

    Raises:
        DataError: the metadata is missing or malformed, or a split is empty.
    """
    session = metadata / fold.replace("fold", "Session")
    rest, emotions = _read_file(session / "train_meta_data.json", root)
    test, others = _read_file(session / "test_meta_data.json", root)
    if emotions.ids != others.ids:
        raise DataError(f"{session}: the two files number their labels differently: {emotions.ids} and {others.ids}.")
    train, dev = split_off_dev(rest, valid_ratio)
    splits = {"train": train, "dev": dev, "test": test}
    for split, utterances in splits.items():
        if not utterances:
            raise DataError(f"{session} leaves no utterance for split {split}.")
    return splits, emotions


def split_off_dev(utterances: Sequence[Utterance], valid_ratio: float) -> tuple[list[Utterance], list[Utterance]]:
    """Split into train and dev at random, but always in the same way: S3PRL's, so that scores can be compared.

    S3PRL draws from the global generator after it has seeded it with 0, and so also fixes the head's first weights
    whatever ``--seed`` says (D23). A generator of its own gives the same split and leaves ``--seed`` alone.
    """
    order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [utterances[index] for index in order]
    size = int((1 - valid_ratio) * len(utterances))
    return shuffled[:size], shuffled[size:]


def _read_file(path: Path, root: Path) -> tuple[list[Utterance], Emotions]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        step = f"from downstream_tasks.er.prepare import write_metadata; write_metadata({str(root)!r}, "
        step += f"{str(path.parents[1])!r})"
        raise DataError(
            f"{path} does not exist. Write IEMOCAP's metadata to `downstream_expert.datarc.meta_data` with "
            f'`python -c "{step}"`; `s3prl-interfaces mini-superb DIR` makes a small corpus to try.'
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not (isinstance(content, dict) and isinstance(content.get("meta_data"), list) and _numbered(content)):
        raise DataError(f'{path} must hold {{"labels": {{"neu": 0, ...}}, "meta_data": [...]}}.')
    labels = content["labels"]
    utterances = []
    for number, entry in enumerate(content["meta_data"], start=1):
        if not (isinstance(entry, dict) and isinstance(entry.get("path"), str) and entry.get("label") in [*labels]):
            raise DataError(f"{path}, entry {number}: needs a `path` and a `label` of {', '.join(labels)}: {entry!r}.")
        utterances.append(Utterance(root / entry["path"], entry["label"]))
    return utterances, Emotions(labels)


def _numbered(content: dict[str, Any]) -> bool:
    """Whether the labels' ids are 0, 1, 2, ..."""
    labels = content.get("labels")
    return isinstance(labels, dict) and all(index in labels.values() for index in range(len(labels)))


class EmotionDataset(Dataset):
    """Utterances of one split: ``(wav, ids, name)``.

    Args:
        utterances: of the split.
        emotions: of the corpus.
        pre_load: read all wavs now and keep them in memory (IEMOCAP: 1.6 GB).

    Raises:
        DataError: with ``pre_load``, a wav cannot be read.
    """

    def __init__(self, utterances: Sequence[Utterance], emotions: Emotions, pre_load: bool) -> None:
        self.utterances = utterances
        self.emotions = emotions
        self.wavs = [load_audio(utterance.path) for utterance in utterances] if pre_load else None

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """One utterance: (samples,) float32 at 16 kHz, (1,) int64, its name."""
        utterance = self.utterances[index]
        wav = load_audio(utterance.path) if self.wavs is None else self.wavs[index]
        return wav, np.array([self.emotions.ids[utterance.emotion]]), utterance.path.stem
