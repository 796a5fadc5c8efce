"""What SUPERB's utterance-level tasks share: mean over time, a linear head, cross-entropy, accuracy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler

from downstream_tasks.heads import UtteranceLevel
from downstream_tasks.loading import generator_of, make_loader, plain_batches, tell_skipped
from downstream_tasks.score import Score


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """The keys of ``datarc`` that every such task has."""

    num_workers: int = 12
    train_batch_size: int = 32
    eval_batch_size: int = 32
    skip_bad_audio: bool = False
    """Leave out an utterance that cannot be read, and say so; else it is an error."""


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


class Labels(Protocol):
    """What an utterance can be: one value of each of one or more slots."""

    @property
    def slots(self) -> Sequence[str]:
        """Names of the slots."""

    @property
    def sizes(self) -> list[int]:
        """How many values each slot has."""

    def decode(self, ids: list[int]) -> tuple[str, ...]:
        """The values of one id per slot."""


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
        loader: LoaderConfig,
        model: ModelConfig,
        datasets: Mapping[str, Dataset],
        labels: Labels,
    ) -> None:
        super().__init__()
        self.expdir = Path(expdir)
        self.seed = seed
        self.loader = loader
        self.datasets = datasets
        self.labels = labels
        self.projector = nn.Linear(upstream_dim, model.projector_dim)
        self.model = UtteranceLevel(model.projector_dim, sum(labels.sizes))
        self.register_buffer("best_score", torch.zeros(1))

    def get_dataloader(self, split: str, epoch: int = 0) -> DataLoader:
        """Batches ``(wavs, ids, names)`` of one epoch of a split.

        Raises:
            KeyError: there is no such split.
        """
        return make_loader(
            self.datasets[split],
            self.batches(split, epoch),
            seed=self.seed,
            split=split,
            epoch=epoch,
            num_workers=self.loader.num_workers,
            skip_bad_audio=self.loader.skip_bad_audio,
        )

    def batches(self, split: str, epoch: int) -> Sampler[list[int]]:
        """Which utterances make up each batch: ``train`` is shuffled, another split keeps its order."""
        size = len(self.datasets[split])  # type: ignore[arg-type]
        if split == "train":
            generator = generator_of(self.seed, split, epoch)
            return plain_batches(size, self.loader.train_batch_size, generator)
        return plain_batches(size, self.loader.eval_batch_size)

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
            records: gets ``acc`` (1.0 where all slots are right) per utterance, the loss per batch, and outside
                training each utterance's name, prediction and truth.

        Returns:
            A scalar.
        """
        logits = self._logits(features)
        targets = torch.stack([torch.as_tensor(row) for row in ids]).to(logits[0].device)
        loss = torch.stack([cross_entropy(slot, target) for slot, target in zip(logits, targets.T, strict=True)]).sum()
        predicted = torch.stack([slot.argmax(dim=1) for slot in logits], dim=1)
        records["acc"] += (predicted == targets).all(dim=1).float().tolist()
        records[self.loss_name].append(loss.item())
        if split != "train":
            records["name"] += names
            records["predict"] += map(self.labels.decode, predicted.tolist())
            records["truth"] += map(self.labels.decode, targets.tolist())
        return loss

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log accuracy and loss; outside training write ``<split>_predict`` and ``<split>_truth``.

        Returns:
            ``["dev-best.ckpt"]`` when dev accuracy is strictly the best so far, else nothing.
        """
        for key in ("acc", self.loss_name):
            average = torch.tensor(records[key]).mean().item()
            logger.add_scalar(f"{self.tag}/{split}-{key}", average, global_step=global_step)
        if split == "train":
            return []
        tell_skipped(split, len(records["name"]), len(self.datasets[split]))  # type: ignore[arg-type]
        for kind in ("predict", "truth"):
            self._write(f"{split}_{kind}", records["name"], records[kind])
        accuracy = torch.tensor(records["acc"]).mean()
        if split != "dev" or accuracy <= self.best_score.item():
            return []
        self.best_score.fill_(accuracy)
        return ["dev-best.ckpt"]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """What utterances that are in no corpus are; the answers are added to the file ``inference``."""
        ids = torch.stack([slot.argmax(dim=1) for slot in self._logits(features)], dim=1).tolist()
        answers = [self.labels.decode(row) for row in ids]
        self._write("inference", names, answers, mode="a")
        return [dict(zip(self.labels.slots, answer, strict=True)) for answer in answers]

    def _logits(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One (batch, values) tensor per slot."""
        lengths = torch.tensor([len(feature) for feature in features], device=features[0].device)
        projected = self.projector(pad_sequence(list(features), batch_first=True))
        return self.model(projected, lengths).split(self.labels.sizes, dim=1)

    def _write(self, file: str, names: Sequence[str], rows: Sequence[tuple[str, ...]], mode: str = "w") -> None:
        lines = [self.separator.join([name, *row]) + "\n" for name, row in zip(names, rows, strict=True)]
        with (self.expdir / f"{file}.{self.suffix}").open(mode, encoding="utf-8") as handle:
            handle.writelines(lines)
