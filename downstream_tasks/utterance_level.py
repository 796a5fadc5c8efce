"""What SUPERB's utterance-level tasks share: mean over time, a linear head, cross-entropy, accuracy."""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Sampler

from downstream_tasks.heads import UtteranceLevel
from downstream_tasks.labels import Labels
from downstream_tasks.loading import (
    AudioDataset,
    ReadingConfig,
    generator_of,
    make_loader,
    plain_batches,
    tell_skipped,
)
from downstream_tasks.records import mean
from downstream_tasks.score import Score
from s3prl_interfaces.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ReaderConfig(ReadingConfig, ABC):
    """The keys of ``datarc`` that every such task has."""

    @abstractmethod
    def batch_size_of(self, split: str) -> int:
        """Utterances of a batch."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig(ReaderConfig):
    """The keys of ``datarc`` of a task with a batch size for training and another for evaluation."""

    train_batch_size: int = 32
    eval_batch_size: int = 32

    def batch_size_of(self, split: str) -> int:
        """Utterances of a batch."""
        return self.train_batch_size if split == "train" else self.eval_batch_size


@dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """The ``UtteranceLevel`` block."""

    pooling: Literal["MeanPooling"] = "MeanPooling"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The ``modelrc`` block."""

    projector_dim: int = 256
    select: Literal["UtteranceLevel"] = "UtteranceLevel"
    UtteranceLevel: PoolingConfig = field(default_factory=PoolingConfig)


Accuracy = Literal["pooled", "balanced"]
"""``pooled`` (SUPERB): the share of the split's utterances that are right, so frequent classes count more.
``balanced``: every class counts the same (``balanced_acc``, see :func:`balanced_accuracy`), in the score and in the
choice of the best checkpoint. Both are logged either way."""


class UtteranceExpert(nn.Module):
    """Head, loaders and metric of a task that classifies utterances, behind S3PRL's ``DownstreamExpert`` protocol.

    Parameters have the names of S3PRL's experts, so their checkpoints load. An utterance counts as right when all its
    slots are.

    Args:
        upstream_dim: width of the features.
        expdir: where predictions go.
        seed: of the order of the data.
        loader: batch sizes and workers.
        model: the head.
        datasets: of each split, with items ``(wav, ids, name)``: (samples,) float32, (slots,) int64, str.
        labels: what the ids mean.
        accuracy: which kind is the score; only tasks of one slot can be ``balanced``.
        protocol: see below.

    Attributes:
        protocol: the options by which SUPERB's protocol and a sounder way differ, with the values that are used.
    """

    score = Score("acc", "test", higher_is_better=True)
    tag: str
    """TensorBoard's group, S3PRL's name of the task."""
    loss_name: ClassVar[str] = "loss"
    """What S3PRL logs the loss as."""
    suffix: ClassVar[str] = "txt"
    separator: ClassVar[str] = " "
    """Of the prediction files, as S3PRL writes them."""
    best_score: Tensor

    def __init__(
        self,
        upstream_dim: int,
        expdir: str,
        *,
        seed: int,
        loader: ReaderConfig,
        model: ModelConfig,
        datasets: Mapping[str, AudioDataset],
        labels: Labels,
        accuracy: Accuracy = "pooled",
        protocol: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.expdir = Path(expdir)
        self.seed = seed
        self.loader = loader
        self.datasets = datasets
        self.labels = labels
        if accuracy == "balanced":
            self.score = Score("balanced_acc", "test", higher_is_better=True)
        self.protocol: dict[str, Any] = {"accuracy": accuracy, **(protocol or {})}
        self.projector = nn.Linear(upstream_dim, model.projector_dim)
        self.model = UtteranceLevel(model.projector_dim, sum(labels.sizes))
        self.register_buffer("best_score", torch.zeros(1))

    def label_state(self) -> dict[str, list[str]]:
        """What a checkpoint holds of the labels: the head can be rebuilt from it without the corpus."""
        return self.labels.values

    def share_corpus(self, other: "UtteranceExpert") -> None:
        """Let an expert of the same config that was made from :meth:`label_state` use this one's corpus."""
        other.datasets = self.datasets

    def get_dataloader(self, split: str, epoch: int = 0) -> DataLoader:
        """Batches ``(wavs, ids, names)`` of one epoch of a split.

        Raises:
            KeyError: there is no such split.
        """
        return make_loader(
            self.datasets[split],
            self.batches(split, epoch),
            self.loader,
            seed=self.seed,
            split=split,
            epoch=epoch,
        )

    def batches(self, split: str, epoch: int) -> Sampler[list[int]]:
        """Which utterances make up each batch: ``train`` is shuffled, another split keeps its order."""
        size = len(self.datasets[split])
        shuffled_by = generator_of(self.seed, split, epoch) if split == "train" else None
        return plain_batches(size, self.loader.batch_size_of(split), shuffled_by)

    def draws_with_replacement(self, split: str) -> bool:
        """Whether :meth:`batches` draws as many utterances as there are, but one more than once and another never."""
        return False

    def forward(
        self,
        split: str,
        features: Sequence[Tensor],
        ids: Sequence[Any],
        names: Sequence[str],
        records: dict[str, list[Any]],
        **_: Any,
    ) -> Tensor:
        """Loss of a batch: the sum of the slots' cross-entropies.

        Args:
            split: which split the batch is of.
            features: one (frames, upstream_dim) tensor per utterance.
            ids: one (slots,) array per utterance.
            names: of the utterances.
            records: gets ``acc`` (of each utterance, 1.0 where all slots are right) and the loss per batch, and outside
                training each utterance's name, prediction and truth.

        Returns:
            A scalar.
        """
        logits = self._logits(features)
        targets = torch.stack([torch.as_tensor(row) for row in ids]).to(logits[0].device)
        loss = torch.stack([cross_entropy(slot, target) for slot, target in zip(logits, targets.T, strict=True)]).sum()
        predicted = torch.stack([slot.argmax(dim=1) for slot in logits], dim=1)
        # Tensors, read when they are logged: each reading would make a GPU wait.
        records["acc"].append((predicted == targets).all(dim=1).float())
        records[self.loss_name].append(loss.detach())
        if split != "train":
            records["name"] += names
            records["predict"] += map(self.labels.decode, predicted.tolist())
            records["truth"] += map(self.labels.decode, targets.tolist())
        return loss

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log accuracy and loss; outside training write ``<split>_predict`` and ``<split>_truth``.

        A task of one slot also logs ``balanced_acc`` outside training, see :func:`balanced_accuracy`; S3PRL does not.

        Returns:
            ``["dev-best.ckpt"]`` when dev accuracy (of the score's kind) is strictly the best so far, else nothing.

        Raises:
            DataError: no utterance of the split could be read.
        """
        if not records["acc"]:
            raise DataError(f"{split}: no utterance could be read.")
        values = {key: mean(records[key]) for key in ("acc", self.loss_name)}
        if split != "train" and len(self.labels.sizes) == 1:
            # As float32, which the buffer of the best has: a tie is one there, too.
            values["balanced_acc"] = torch.tensor(balanced_accuracy(records["predict"], records["truth"])).item()
        for key, value in values.items():
            logger.add_scalar(f"{self.tag}/{split}-{key}", value, global_step=global_step)
        if split == "train":
            return []
        drawn = "draws" if self.draws_with_replacement(split) else "utterances"
        tell_skipped(split, len(records["name"]), len(self.datasets[split]), drawn)
        for kind in ("predict", "truth"):
            self._write(f"{split}_{kind}", records["name"], records[kind])
        accuracy = values[self.score.metric]
        if split != "dev" or accuracy <= self.best_score.item():
            return []
        self.best_score.fill_(accuracy)
        return ["dev-best.ckpt"]

    def predict(self, features: Sequence[Tensor]) -> list[dict[str, str]]:
        """What utterances that are in no corpus are.

        Args:
            features: one (frames, upstream_dim) tensor per utterance.

        Returns:
            One mapping of slots to values per utterance.
        """
        ids = torch.stack([slot.argmax(dim=1) for slot in self._logits(features)], dim=1).tolist()
        return [dict(zip(self.labels.slots, self.labels.decode(row), strict=True)) for row in ids]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """As :meth:`predict`; the answers are also added to the file ``inference``."""
        answers = self.predict(features)
        self._write("inference", names, [tuple(answer.values()) for answer in answers], mode="a")
        return answers

    def _logits(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One (batch, values) tensor per slot."""
        lengths = torch.tensor([len(feature) for feature in features], device=features[0].device)
        projected = self.projector(pad_sequence(list(features), batch_first=True))
        return self.model(projected, lengths).split(self.labels.sizes, dim=1)

    def _write(self, file: str, names: Sequence[str], rows: Sequence[tuple[str, ...]], mode: str = "w") -> None:
        lines = [self.separator.join([name, *row]) + "\n" for name, row in zip(names, rows, strict=True)]
        with (self.expdir / f"{file}.{self.suffix}").open(mode, encoding="utf-8") as handle:
            handle.writelines(lines)


def balanced_accuracy(predicted: Sequence[Hashable], truth: Sequence[Hashable]) -> float:
    """Accuracy with every class counting the same ("unweighted accuracy"): the mean of the classes' recalls.

    Args:
        predicted: one class per utterance.
        truth: as many.

    Returns:
        A fraction; classes that are not in ``truth`` do not count. NaN without an utterance.
    """
    right: dict[Hashable, list[float]] = defaultdict(list)
    for guess, actual in zip(predicted, truth, strict=True):
        right[actual].append(float(guess == actual))
    return float(np.mean([np.mean(hits) for hits in right.values()])) if right else math.nan
