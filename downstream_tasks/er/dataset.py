"""IEMOCAP for emotion recognition: ``<meta_data>/SessionN/{train,test}_meta_data.json`` and the wavs that they name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from downstream_tasks.audio import load_audio
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from s3prl_interfaces.errors import DataError

SESSIONS = 5
"""Of IEMOCAP, with two speakers each."""


@dataclass(frozen=True)
class Utterance:
    """One entry of the metadata."""

    path: Path
    emotion: str


def read_fold(
    metadata: Path, root: Path, fold: str, valid_ratio: float | None
) -> tuple[dict[str, list[Utterance]], Labels]:
    """The utterances of each split of a fold, and what their emotions are.

    Args:
        metadata: the folder that holds SessionN/{train,test}_meta_data.json.
        root: the folder that holds SessionN/sentences/wav.
        fold: ``foldN`` tests on session N.
        valid_ratio: which part of the other sessions is dev, at random; None: dev is the session after N (1 after 5).

    Raises:
        DataError: the metadata is missing or malformed, or a split is empty.
    """
    session = metadata / fold.replace("fold", "Session")
    rest, ids = _read_file(session / "train_meta_data.json", root)
    test, other_ids = _read_file(session / "test_meta_data.json", root)
    if ids != other_ids:
        raise DataError(f"{session}: the two files number their labels differently: {ids} and {other_ids}.")
    if valid_ratio is None:
        following = metadata / f"Session{int(fold[-1]) % SESSIONS + 1}"
        of_dev = {utterance.path for utterance in _read_file(following / "test_meta_data.json", root)[0]}
        train = [utterance for utterance in rest if utterance.path not in of_dev]
        dev = [utterance for utterance in rest if utterance.path in of_dev]
    else:
        train, dev = split_off_dev(rest, valid_ratio)
    splits = {"train": train, "dev": dev, "test": test}
    for split, utterances in splits.items():
        if not utterances:
            raise DataError(f"{session} leaves no utterance for split {split}.")
    return splits, Labels({"emotion": sorted(ids, key=ids.__getitem__)})


def split_off_dev(utterances: Sequence[Utterance], valid_ratio: float) -> tuple[list[Utterance], list[Utterance]]:
    """Split into train and dev at random, but always in the same way: S3PRL's, so that scores can be compared.

    S3PRL draws from the global generator after it has seeded it with 0, and so also fixes the head's first weights
    whatever ``--seed`` says (D23). A generator of its own gives the same split and leaves ``--seed`` alone.
    """
    order = torch.randperm(len(utterances), generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = [utterances[index] for index in order]
    size = int((1 - valid_ratio) * len(utterances))
    return shuffled[:size], shuffled[size:]


def _read_file(path: Path, root: Path) -> tuple[list[Utterance], dict[str, int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist: run `s3prl-interfaces prepare er {root}`, which writes IEMOCAP's metadata to "
            f"{root / 'meta_data'}, and let `downstream_expert.datarc.meta_data` name that folder; "
            "`s3prl-interfaces mini-superb DIR` makes a small corpus to try."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if not (isinstance(content, dict) and isinstance(content.get("meta_data"), list) and _numbered(content)):
        raise DataError(f'{path} must hold {{"labels": {{"neu": 0, ...}}, "meta_data": [...]}}.')
    labels = content["labels"]
    utterances = []
    for number, entry in enumerate(content["meta_data"], start=1):
        if not (isinstance(entry, dict) and isinstance(entry.get("path"), str) and entry.get("label") in [*labels]):
            raise DataError(f"{path}, entry {number}: needs a `path` and a `label` of {', '.join(labels)}: {entry!r}.")
        utterances.append(Utterance(root / entry["path"], entry["label"]))
    return utterances, labels


def _numbered(content: dict[str, Any]) -> bool:
    """Whether the labels' ids are 0, 1, 2, ..."""
    labels = content.get("labels")
    return isinstance(labels, dict) and all(index in labels.values() for index in range(len(labels)))


class EmotionDataset(AudioDataset):
    """Utterances of one split: ``(wav, ids, name)``.

    Args:
        utterances: of the split.
        emotions: of the corpus.
        pre_load: read all wavs now and keep them in memory (IEMOCAP: 1.6 GB).
        skip_bad_audio: with ``pre_load``, leave it to the loader to tell of a wav that cannot be read.

    Raises:
        DataError: with ``pre_load`` and without ``skip_bad_audio``, a wav cannot be read.
    """

    def __init__(
        self, utterances: Sequence[Utterance], emotions: Labels, pre_load: bool, skip_bad_audio: bool = False
    ) -> None:
        self.utterances = utterances
        self.emotions = emotions
        self.wavs: dict[int, np.ndarray] = {}
        for index, utterance in enumerate(utterances if pre_load else ()):
            try:
                self.wavs[index] = load_audio(utterance.path)
            except DataError:
                if not skip_bad_audio:
                    raise

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.utterances[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """One utterance: (samples,) float32 at 16 kHz, (1,) int64, its name."""
        utterance = self.utterances[index]
        wav = self.wavs[index] if index in self.wavs else load_audio(utterance.path)
        return wav, self.emotions.encode([utterance.emotion]), utterance.path.stem
