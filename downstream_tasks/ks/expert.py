"""SUPERB's KS as S3PRL runs it (``s3prl/downstream/speech_commands``): twelve classes, each drawn equally often."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import BatchSampler, Sampler, WeightedRandomSampler

from downstream_tasks.ks.dataset import LABELS, Clip, Corpus, KeywordDataset, read_corpus, transform
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset, generator_of
from downstream_tasks.utterance_level import Accuracy, ModelConfig, ReaderConfig, UtteranceExpert
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class DataConfig(ReaderConfig):
    """The ``datarc`` block."""

    speech_commands_root: str
    """The folder that holds yes/, no/, ..., bed/, bird/, ... and _background_noise_/."""
    speech_commands_test_root: str
    """The folder that holds yes/, no/, ..., _unknown_/ and _silence_/."""
    num_workers: int = 8
    batch_size: int = 32
    """Of all splits."""
    train_sampling: Literal["balanced", "plain"] = "balanced"
    """``balanced`` (SUPERB): as many draws as there are clips, with replacement, each class equally likely; an
    incomplete last batch is dropped. ``plain``: each clip once an epoch."""
    dev_sampling: Literal["balanced", "plain"] = "balanced"
    """``balanced`` (SUPERB): as train, nothing is dropped. Dev accuracy is then balanced over classes, but depends on
    the seed, misses clips and counts others twice; the draws are the same at every evaluation of a run. ``plain``: each
    clip once; then ``balanced_acc`` is the exact form of what SUPERB estimates. Test is always plain."""
    dev_noise: Literal["shared", "held_out"] = "shared"
    """``shared`` (SUPERB): the silence of train and of dev is cut from the same recordings. ``held_out``: every second
    recording is dev's alone."""

    def batch_size_of(self, split: str) -> int:
        """Utterances of a batch."""
        return self.batch_size


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: ModelConfig = field(default_factory=ModelConfig)
    accuracy: Accuracy = "pooled"


class DownstreamExpert(UtteranceExpert):
    """Keyword spotting on Speech Commands.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the draws.
        label_state: what a checkpoint says of the labels, where the corpus is not there; without loaders then.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus is missing or incomplete.
    """

    tag = "speech_commands"

    def __init__(
        self,
        upstream_dim: int,
        downstream_expert: dict[str, Any],
        expdir: str,
        seed: int = 1337,
        label_state: dict[str, list[str]] | None = None,
        **_: Any,
    ) -> None:
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        data = config.datarc
        datasets = _read_corpus(data) if label_state is None else {}
        super().__init__(
            upstream_dim,
            expdir,
            seed=seed,
            loader=data,
            model=config.modelrc,
            datasets=datasets,
            labels=LABELS if label_state is None else Labels(label_state),
            accuracy=config.accuracy,
            protocol={key: getattr(data, key) for key in ("train_sampling", "dev_sampling", "dev_noise")},
        )

    def draws_with_replacement(self, split: str) -> bool:
        """Whether a split is drawn class by class, as SUPERB does with train and dev."""
        return self.protocol.get(f"{split}_sampling") == "balanced"

    def batches(self, split: str, epoch: int) -> Sampler[list[int]]:
        """Which clips make up each batch: drawn with replacement, or as the other tasks."""
        if not self.draws_with_replacement(split):
            return super().batches(split, epoch)
        weights = self.datasets[split].weights  # type: ignore[attr-defined]
        draws = WeightedRandomSampler(weights, len(weights), generator=generator_of(self.seed, split, epoch))
        return BatchSampler(draws, self.loader.batch_size_of(split), drop_last=split == "train")

    @staticmethod
    def transform(wav: np.ndarray) -> np.ndarray:
        """What is done to the corpus's clips after they are read: (samples,) float32, 3 dB quieter."""
        return transform(wav)


def _read_corpus(data: DataConfig) -> dict[str, AudioDataset]:
    corpus = read_corpus(Path(data.speech_commands_root), Path(data.speech_commands_test_root))
    train_noises, dev_noises = _deal_noises(corpus, data)
    train = KeywordDataset([*corpus.words["train"], *train_noises], crop_silence=True)
    if data.train_sampling == "balanced" and data.batch_size > len(train):
        raise ConfigError(
            f"`downstream_expert.datarc.batch_size` {data.batch_size} leaves no whole batch of the {len(train)} "
            "training clips: lower it, or set `train_sampling: plain`."
        )
    dev = KeywordDataset([*corpus.words["dev"], *dev_noises], crop_silence=True)
    return {"train": train, "dev": dev, "test": KeywordDataset(corpus.test, crop_silence=False)}


def _deal_noises(corpus: Corpus, data: DataConfig) -> tuple[list[Clip], list[Clip]]:
    """The recordings that the silence of train and of dev is cut from."""
    if data.dev_noise == "shared":
        return corpus.noises, corpus.noises
    if len(corpus.noises) < 2:
        raise DataError(
            f"{data.speech_commands_root} has one background noise: `dev_noise: held_out` needs two or more."
        )
    return corpus.noises[::2], corpus.noises[1::2]
