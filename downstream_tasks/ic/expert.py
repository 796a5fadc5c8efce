"""SUPERB's IC as S3PRL runs it (``s3prl/downstream/fluent_commands``): three slots, all must be right."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from downstream_tasks.heads import UtteranceLevel
from downstream_tasks.ic.dataset import FILES, SLOTS, FluentCommandsDataset, Vocabulary, read_split
from downstream_tasks.score import Score
from s3prl_interfaces.schema import read_block

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The ``datarc`` block."""

    file_path: str
    """The folder that holds data/ and wavs/."""
    num_workers: int = 12
    train_batch_size: int = 32
    eval_batch_size: int = 32


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


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: ModelConfig = field(default_factory=ModelConfig)


class DownstreamExpert(nn.Module):
    """Head, data and metric of intent classification, behind S3PRL's ``DownstreamExpert`` protocol.

    Parameters have the names of S3PRL's expert, so its checkpoints load.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus is missing or malformed.
    """

    best_score: Tensor
    score = Score("acc", "test", higher_is_better=True)

    def __init__(self, upstream_dim: int, downstream_expert: dict[str, Any], expdir: str, **_: Any) -> None:
        super().__init__()
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        self.data = config.datarc
        self.expdir = Path(expdir)
        commands = {split: read_split(Path(self.data.file_path), split) for split in FILES}
        self.vocabulary = Vocabulary(commands["train"])
        self.datasets = {split: FluentCommandsDataset(rows, self.vocabulary) for split, rows in commands.items()}
        self.projector = nn.Linear(upstream_dim, config.modelrc.projector_dim)
        self.model = UtteranceLevel(config.modelrc.projector_dim, sum(self.vocabulary.sizes))
        self.register_buffer("best_score", torch.zeros(1))

    def get_dataloader(self, split: str) -> DataLoader:
        """Batches ``(wavs, labels, names)`` of ``train`` (shuffled), ``dev`` or ``test`` (in the file's order).

        Raises:
            KeyError: there is no such split.
        """
        dataset = self.datasets[split]
        training = split == "train"
        return DataLoader(
            dataset,
            batch_size=self.data.train_batch_size if training else self.data.eval_batch_size,
            shuffle=training,
            num_workers=self.data.num_workers,
            collate_fn=_transpose,
        )

    def forward(
        self,
        split: str,
        features: Sequence[Tensor],
        labels: Sequence[Any],
        names: Sequence[str],
        records: dict[str, list[Any]],
        **_: Any,
    ) -> Tensor:
        """Loss of a batch: the sum of the slots' cross-entropies.

        Args:
            split: which split the batch is of.
            features: one (frames, upstream_dim) tensor per utterance.
            labels: one (3,) array of ids per utterance.
            names: of the utterances.
            records: gets ``acc`` (1.0 where all three slots are right) per utterance, ``intent_loss`` per batch,
                and outside training each utterance's name, prediction and truth.

        Returns:
            A scalar.
        """
        logits = self._logits(features)
        targets = torch.stack([torch.as_tensor(label) for label in labels]).to(logits[0].device)
        loss = torch.stack([cross_entropy(slot, target) for slot, target in zip(logits, targets.T, strict=True)]).sum()
        predicted = torch.stack([slot.argmax(dim=1) for slot in logits], dim=1)
        records["acc"] += (predicted == targets).all(dim=1).float().tolist()
        records["intent_loss"].append(loss.item())
        if split != "train":
            records["name"] += names
            records["predict"] += map(self.vocabulary.decode, predicted.tolist())
            records["truth"] += map(self.vocabulary.decode, targets.tolist())
        return loss

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log ``acc`` and ``intent_loss``; outside training write ``<split>_{predict,truth}.csv``.

        Returns:
            ``["dev-best.ckpt"]`` when dev accuracy is strictly the best so far, else nothing.
        """
        for key in ("acc", "intent_loss"):
            average = torch.tensor(records[key]).mean().item()
            logger.add_scalar(f"fluent_commands/{split}-{key}", average, global_step=global_step)
        if split == "train":
            return []
        for kind in ("predict", "truth"):
            self._write(f"{split}_{kind}.csv", records["name"], records[kind])
        accuracy = torch.tensor(records["acc"]).mean()
        if split != "dev" or accuracy <= self.best_score.item():
            return []
        self.best_score.fill_(accuracy)
        return ["dev-best.ckpt"]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """The intents of utterances that are in no corpus; they are added to ``inference.csv``."""
        ids = torch.stack([slot.argmax(dim=1) for slot in self._logits(features)], dim=1).tolist()
        answers = [self.vocabulary.decode(row) for row in ids]
        self._write("inference.csv", names, answers, mode="a")
        return [dict(zip(SLOTS, answer, strict=True)) for answer in answers]

    def _logits(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One (batch, values) tensor per slot."""
        lengths = torch.tensor([len(feature) for feature in features], device=features[0].device)
        projected = self.projector(pad_sequence(list(features), batch_first=True))
        return self.model(projected, lengths).split(self.vocabulary.sizes, dim=1)

    def _write(self, file: str, names: Sequence[str], rows: Sequence[tuple[str, ...]], mode: str = "w") -> None:
        with (self.expdir / file).open(mode, newline="", encoding="utf-8") as handle:
            csv.writer(handle, lineterminator="\n").writerows(
                [name, *row] for name, row in zip(names, rows, strict=True)
            )


def _transpose(samples: list[tuple[Any, ...]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(zip(*samples, strict=True))
