"""What PR and SF share: S3PRL's ``ctc`` (``s3prl/downstream/ctc/expert.py`` and ``data.py``)."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from downstream_tasks.audio import load_audio
from downstream_tasks.ctc import CTCExpert, CTCModelConfig
from downstream_tasks.lengths import audio_lengths
from downstream_tasks.loading import (
    AudioDataset,
    Groups,
    ReadingConfig,
    generator_of,
    longest_first,
    make_loader,
    plain_batches,
    tell_skipped,
)
from downstream_tasks.records import mean
from downstream_tasks.score import Score
from downstream_tasks.text_metrics import Metric
from downstream_tasks.vocabulary import EOS, PAD, Vocabulary
from downstream_tasks.windows import halve_long, make_windows
from s3prl_interfaces.errors import ConfigError, DataError, unknown_name

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig(ReadingConfig):
    """The keys of ``corpus`` that both tasks have."""

    name: str
    """Tells the corpora of S3PRL's ``ctc`` apart."""
    path: str
    train: tuple[str, ...]
    """Folders of ``path`` that make up the split; so are ``dev`` and ``test``."""
    dev: tuple[str, ...]
    test: tuple[str, ...]
    bucketing: bool = True
    """Training batches are windows of utterances that are alike in length; false: they are dealt at random."""
    batch_size: int
    """Utterances of a training batch; the other splits have one a batch."""
    windows: Literal["overlapping", "disjoint"] = "overlapping"
    """SUPERB: a window begins at every utterance, so an epoch shows each about ``batch_size`` times, the longest and
    the shortest ones less or more often. Sounder: ``disjoint``, each utterance once an epoch."""
    half_window_rule: bool = True
    """SUPERB: where a batch's first utterance exceeds 300000 samples, the second half of the batch is not trained on.
    Sounder: ``false``, whole batches, where memory allows; or ``windows: disjoint``, under which the second half is a
    batch of its own."""


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The keys of ``text`` that both tasks have."""

    mode: str
    vocab_file: str | None = None
    """One token on each line; None: SUPERB's, which are built in."""
    eos_in_targets: bool = True
    """SUPERB: ``<eos>`` ends every target, so CTC learns to emit a token that nothing in the sound stands for.
    Sounder: ``false``. The output layer has it either way."""


@dataclass(frozen=True, kw_only=True)
class TextModelConfig(CTCModelConfig):
    """The ``model`` block."""

    zero_infinity: bool = True
    """An utterance with fewer frames than its target needs counts 0 instead of infinity."""


@dataclass(frozen=True, kw_only=True)
class TextExpertConfig:
    """The ``downstream_expert`` block."""

    corpus: CorpusConfig
    text: TextConfig
    model: TextModelConfig
    save_best_on: tuple[str, ...] = ("dev",)
    """Splits whose best checkpoint is kept."""
    metric: tuple[str, ...]
    """What is logged; the first one says which checkpoint is best."""
    metric_higher_better: bool
    """Whether more of the first metric is better."""


@dataclass(frozen=True)
class Transcribed:
    """One utterance: its audio file and the (tokens,) int64 ids of what is said."""

    path: Path
    target: np.ndarray


class TextDataset(AudioDataset):
    """Utterances of one split, those with the longest target first: ``(wav, target, name)``."""

    def __init__(self, utterances: Sequence[Transcribed]) -> None:
        self.utterances = sorted(utterances, key=lambda utterance: len(utterance.target), reverse=True)

    def __len__(self) -> int:
        """How many utterances there are."""
        return len(self.utterances)

    def path(self, index: int) -> Path:
        """The audio file of an utterance."""
        return self.utterances[index].path

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, str]:
        """Read one utterance: (samples,) float32 at 16 kHz, (tokens,) int64, the file's name up to its first dot."""
        utterance = self.utterances[index]
        return load_audio(utterance.path), utterance.target, utterance.path.name.partition(".")[0]


class TextExpert(CTCExpert):
    """Head, loaders and metrics of PR and SF, behind S3PRL's ``DownstreamExpert`` protocol.

    Args:
        upstream_dim: width of the features.
        upstream_rate: samples per frame.
        expdir: where predictions go.
        seed: of the order of the data.
        config: the config's block.
        splits: the utterances of ``train``, ``dev`` and ``test``; none where only audio of no corpus is transcribed.
        tokens: what the targets' ids mean.

    Attributes:
        protocol: the options in which SUPERB and a sounder way differ, with their values.

    Raises:
        ConfigError: a metric or a split is unknown, or ``metric_higher_better`` does not fit the metric.
    """

    score: Score
    tag: str
    """TensorBoard's group, S3PRL's name of the task."""
    metrics: ClassVar[Mapping[str, Metric]]
    """By the names that ``metric`` may have."""
    best_score: Tensor

    def __init__(
        self,
        upstream_dim: int,
        upstream_rate: int,
        expdir: str,
        *,
        seed: int,
        config: TextExpertConfig,
        splits: Mapping[str, Sequence[Transcribed]],
        tokens: Vocabulary,
    ) -> None:
        super().__init__(
            upstream_dim,
            upstream_rate,
            config.model,
            vocabulary=len(tokens),
            blank=PAD,
            zero_infinity=config.model.zero_infinity,
        )
        self._check(config)
        self.expdir = Path(expdir)
        self.seed = seed
        self.config = config
        self.tokens = tokens
        self.datasets = {split: TextDataset(utterances) for split, utterances in splits.items()}
        self.protocol: dict[str, Any] = {
            "windows": config.corpus.windows,
            "half_window_rule": config.corpus.half_window_rule,
            "eos_in_targets": config.text.eos_in_targets,
        }
        self.register_buffer("best_score", torch.full((1,), 0.0 if config.metric_higher_better else float(1 << 31)))

    def _check(self, config: TextExpertConfig) -> None:
        for split in SPLITS:
            if not getattr(config.corpus, split):
                raise ConfigError(f"`downstream_expert.corpus.{split}` must name a folder of the corpus.")
        for split in config.save_best_on:
            if split not in ("dev", "test"):
                raise ConfigError(unknown_name("split in `downstream_expert.save_best_on`:", split, ("dev", "test")))
        for name in config.metric:
            if name not in self.metrics:
                raise ConfigError(unknown_name("metric in `downstream_expert.metric`:", name, self.metrics))
        if not config.metric:
            raise ConfigError("`downstream_expert.metric` must name a metric: the first says which checkpoint is best.")
        right = self.metrics[config.metric[0]].higher_is_better
        if config.metric_higher_better != right:
            raise ConfigError(
                f"`downstream_expert.metric_higher_better` must be {str(right).lower()} for {config.metric[0]}, which "
                "comes first in `metric`: else the worst checkpoint is kept."
            )
        if config.corpus.batch_size < 1:
            raise ConfigError(
                f"`downstream_expert.corpus.batch_size` must be 1 or more, but is {config.corpus.batch_size}."
            )

    def share_corpus(self, other: "TextExpert") -> None:
        """Let an expert of the same config that was made from :meth:`label_state` use this one's corpus."""
        other.datasets = self.datasets

    def get_dataloader(self, split: str, epoch: int = 0) -> DataLoader:
        """Batches ``(wavs, targets, names)`` of one epoch of a split, the longest wav of a batch first.

        Raises:
            KeyError: there is no such split.
            DataError: a training utterance's length cannot be read, which the half-window rule needs.
        """
        return make_loader(
            self.datasets[split],
            self.batches(split, epoch),
            self.config.corpus,
            seed=self.seed,
            split=split,
            epoch=epoch,
            collate=longest_first,
        )

    def batches(self, split: str, epoch: int) -> Sampler[list[int]]:
        """Which utterances make up each batch."""
        corpus = self.config.corpus
        if split != "train":
            return plain_batches(len(self.datasets[split]), 1)
        generator = generator_of(self.seed, split, epoch)
        if corpus.bucketing:
            return Groups(self._windows, generator)
        dealt = plain_batches(len(self._readable), corpus.batch_size, generator)
        return Groups(self._halved([[self._readable[index] for index in batch] for batch in dealt]))

    @cached_property
    def _windows(self) -> list[list[int]]:
        """The windows of the training split."""
        corpus = self.config.corpus
        overlapping = corpus.windows == "overlapping"
        return self._halved(make_windows(self._readable, corpus.batch_size, overlapping=overlapping))

    def _halved(self, batches: list[list[int]]) -> list[list[int]]:
        corpus = self.config.corpus
        if not corpus.half_window_rule:
            return batches
        return halve_long(batches, self._lengths, drop=corpus.windows == "overlapping")

    @cached_property
    def _lengths(self) -> list[int]:
        """Samples of each training utterance: read from the headers once, not from each batch's first file twice."""
        root = Path(self.config.corpus.path)
        files = [utterance.path.relative_to(root).as_posix() for utterance in self.datasets["train"].utterances]
        return audio_lengths(root, files, skip_bad_audio=self.config.corpus.skip_bad_audio)

    @cached_property
    def _readable(self) -> list[int]:
        """The training utterances, without those whose length cannot be read if it is needed."""
        everything = list(range(len(self.datasets["train"])))
        if not self.config.corpus.half_window_rule:
            return everything
        readable = [index for index in everything if self._lengths[index]]
        tell_skipped("train", len(readable), len(everything))
        return readable

    def forward(
        self,
        split: str,
        features: Sequence[Tensor],
        labels: Sequence[Any],
        filenames: Sequence[str],
        records: dict[str, list[Any]],
        **_: Any,
    ) -> Tensor:
        """CTC loss of a batch.

        Args:
            split: which split the batch is of.
            features: one (frames, upstream_dim) tensor per utterance.
            labels: one (tokens,) array per utterance.
            filenames: names of the utterances.
            records: gets each utterance's hypothesis, truth and name, and the loss per batch.

        Returns:
            A scalar.
        """
        targets = [torch.as_tensor(label) for label in labels]
        log_probs, lengths = self.log_probs(features)
        loss = self.loss(log_probs, lengths, targets)
        records["loss"].append(loss.detach())
        likeliest = log_probs.detach().argmax(dim=-1)
        if split == "train":  # decoded where it is logged
            records["heard"].append((likeliest, lengths))
        else:
            records["hypothesis"] += self._decode(likeliest, lengths)
        records["groundtruth"] += [self.tokens.decode(target.tolist()) for target in targets]
        records["filename"] += filenames
        return loss

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log loss and metrics; outside training write ``<split>-hyp.ark`` and ``<split>-ref.ark``.

        Returns:
            ``["<split>-best.ckpt"]`` for a split of ``save_best_on`` whose first metric is strictly the best so far,
            else nothing.

        Raises:
            DataError: no utterance of the split could be read.
        """
        if not records["filename"]:
            raise DataError(f"{split}: no utterance could be read.")
        for heard in records.pop("heard", []):
            records["hypothesis"] += self._decode(*heard)
        hypotheses, references = records["hypothesis"], records["groundtruth"]
        names = dict.fromkeys((*self.config.metric, self.score.metric))
        values = {name: self.metrics[name].compute(hypotheses, references) for name in names}
        values["loss"] = mean(records["loss"])
        for name, value in values.items():
            logger.add_scalar(f"{self.tag}/{split}-{name}", value, global_step=global_step)
        if split == "train":
            return []
        tell_skipped(split, len(records["filename"]), len(self.datasets[split]))
        self._write(f"{split}-hyp", records["filename"], hypotheses)
        self._write(f"{split}-ref", records["filename"], references)
        score = torch.full_like(self.best_score, values[self.config.metric[0]])
        better = score > self.best_score if self.config.metric_higher_better else score < self.best_score
        if split not in self.config.save_best_on or not better:
            return []
        self.best_score.copy_(score)
        return [f"{split}-best.ckpt"]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """As :meth:`predict`; the texts are also added to ``inference.ark``."""
        texts = self._texts(features)
        self._write("inference", names, texts, mode="a")
        return [self.answer(text) for text in texts]

    def predict(self, features: Sequence[Tensor]) -> list[dict[str, str]]:
        """What is said in utterances that are in no corpus.

        Args:
            features: one (frames, upstream_dim) tensor per utterance.

        Returns:
            One mapping per utterance, see :meth:`answer`.
        """
        return [self.answer(text) for text in self._texts(features)]

    def label_state(self) -> list[str]:
        """The task's own tokens, for checkpoints: given to the constructor, it does without the corpus."""
        return self.tokens.own

    @abstractmethod
    def answer(self, text: str) -> dict[str, str]:
        """What is said of a hypothesis, in plain words."""

    def _texts(self, features: Sequence[Tensor]) -> list[str]:
        log_probs, lengths = self.log_probs(features)
        return self._decode(log_probs.argmax(dim=-1), lengths)

    def _decode(self, likeliest: Tensor, lengths: Tensor) -> list[str]:
        """Hypotheses. An ``<eos>`` on the way is passed over, as S3PRL does, not taken as the end."""
        paths = self.greedy(likeliest, lengths)
        return [self.tokens.decode(index for index in path if index != EOS) for path in paths]

    def _write(self, file: str, names: Sequence[str], texts: Sequence[str], mode: str = "w") -> None:
        with (self.expdir / f"{file}.ark").open(mode, encoding="utf-8") as handle:
            handle.writelines(f"{name} {text}\n" for name, text in zip(names, texts, strict=True))


def check_names(config: TextExpertConfig, corpus: str, mode: str) -> None:
    """Check that a config of S3PRL's ``ctc`` is the task's.

    Raises:
        ConfigError: it has another corpus or text mode.
    """
    found = config.corpus.name
    if found.lower() != corpus:
        raise ConfigError(
            f"`downstream_expert.corpus.name` must be {corpus} for this task, but is {found!r}. S3PRL's `ctc` is PR "
            "with libriphone and SF with snips; its other corpora are not among SUPERB's tasks here."
        )
    if config.text.mode != mode:
        raise ConfigError(
            f"`downstream_expert.text.mode` must be {mode} for this task, but is {config.text.mode!r}: S3PRL's other "
            "modes belong to tasks that are not SUPERB's."
        )
