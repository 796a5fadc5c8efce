"""SUPERB's ER as S3PRL runs it (``s3prl/downstream/emotion``): one session is tested on, the others are trained on."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from downstream_tasks.er.dataset import SESSIONS, EmotionDataset, read_fold
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from downstream_tasks.utterance_level import Accuracy, LoaderConfig, ModelConfig, UtteranceExpert
from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.schema import read_block

log = logging.getLogger(__name__)

FOLDS = tuple(f"fold{number}" for number in range(1, SESSIONS + 1))


@dataclass(frozen=True, kw_only=True)
class DataConfig(LoaderConfig):
    """The ``datarc`` block."""

    root: str
    """The folder that holds Session1 to Session5."""
    meta_data: str
    """The folder that holds SessionN/{train,test}_meta_data.json."""
    test_fold: str | None = None
    """``fold1`` to ``fold5``; None leaves the choice to ``-v``."""
    pre_load: bool = True
    """Read all wavs at the start and keep them in memory."""
    valid_ratio: float = 0.2
    """Which part of the four sessions that are not tested on is dev, with ``dev_split: random``."""
    dev_split: Literal["random", "session"] = "random"
    """``random`` (SUPERB): utterances of all four sessions, so the speakers of dev are also trained on.
    ``session``: the session after the tested one (1 after 5), whose speakers are in no other split."""
    train_batch_size: int = 4
    eval_batch_size: int = 4
    num_workers: int = 6


@dataclass(frozen=True, kw_only=True)
class EmotionModelConfig(ModelConfig):
    """The ``modelrc`` block."""

    DeepModel: Any = None
    """Settings of a head that SUPERB does not use. S3PRL's config states them; nothing reads them."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: EmotionModelConfig = field(default_factory=EmotionModelConfig)
    accuracy: Accuracy = "pooled"


class DownstreamExpert(UtteranceExpert):
    """Emotion recognition on one fold of IEMOCAP.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        downstream_variant: the fold (``-v``) where the config names none; fold1 where neither does.
        seed: of the order of the data.
        label_state: what a checkpoint says of the labels, where the corpus is not there; without loaders then.

    Attributes:
        folds: all of them, and the config key that names one: for `--all-folds`.
        fold: ``foldN``; session N is the test split.

    Raises:
        ConfigError: a key that nothing reads, a value that does not fit, or no such fold.
        DataError: the corpus or its metadata is missing or malformed.
    """

    folds = FOLDS
    fold_key = "downstream_expert.datarc.test_fold"
    fold: str

    def __init__(
        self,
        upstream_dim: int,
        downstream_expert: dict[str, Any],
        expdir: str,
        downstream_variant: str | None = None,
        seed: int = 1337,
        label_state: dict[str, list[str]] | None = None,
        **_: Any,
    ) -> None:
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        data = config.datarc
        if not 0 < data.valid_ratio < 1:
            raise ConfigError(f"`downstream_expert.datarc.valid_ratio` must be in (0, 1), but is {data.valid_ratio}.")
        fold = _choose_fold(data.test_fold, downstream_variant)
        datasets, labels = _read_corpus(data, fold) if label_state is None else ({}, Labels(label_state))
        super().__init__(
            upstream_dim,
            expdir,
            seed=seed,
            loader=data,
            model=config.modelrc,
            datasets=datasets,
            labels=labels,
            accuracy=config.accuracy,
            protocol={"dev_split": data.dev_split},
        )
        self.fold = fold
        self.tag = f"emotion-{fold}"

    def _write(self, file: str, names: Sequence[str], rows: Sequence[tuple[str, ...]], mode: str = "w") -> None:
        """As the other tasks, but in files that name the fold: dev_predict is dev_fold1_predict."""
        super()._write(file.replace("_", f"_{self.fold}_"), names, rows, mode)


def _read_corpus(data: DataConfig, fold: str) -> tuple[dict[str, AudioDataset], Labels]:
    ratio = data.valid_ratio if data.dev_split == "random" else None
    splits, emotions = read_fold(Path(data.meta_data), Path(data.root), fold, ratio)
    datasets: dict[str, AudioDataset] = {
        split: EmotionDataset(utterances, emotions, data.pre_load, data.skip_bad_audio)
        for split, utterances in splits.items()
    }
    return datasets, emotions


def _choose_fold(configured: str | None, variant: str | None) -> str:
    """The config's fold, else ``-v``'s, else fold1, as S3PRL."""
    if configured and variant and configured != variant:
        log.warning("The config's test_fold %s is used, not `-v %s`.", configured, variant)
    fold = configured or variant or FOLDS[0]
    if fold not in FOLDS:
        raise ConfigError(unknown_name("fold", fold, FOLDS))
    return fold
