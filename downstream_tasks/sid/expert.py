"""SUPERB's SID as S3PRL runs it (``s3prl/downstream/voxceleb1``)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from downstream_tasks.sid.dataset import SpeakerDataset, labels_of, read_metadata
from downstream_tasks.utterance_level import Accuracy, LoaderConfig, ModelConfig, UtteranceExpert
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class DataConfig(LoaderConfig):
    """The ``datarc`` block."""

    file_path: str
    """The folder that holds dev/wav and test/wav."""
    meta_data: str
    """VoxCeleb1's veri_test_class.txt."""
    train_batch_size: int = 8
    eval_batch_size: int = 1
    max_timestep: int | None = None
    """Longest piece of a training utterance, in samples; longer ones are cropped at random."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: ModelConfig = field(default_factory=ModelConfig)
    accuracy: Accuracy = "pooled"


class DownstreamExpert(UtteranceExpert):
    """Speaker identification on VoxCeleb1.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the order of the data.
        label_state: what a checkpoint says of the labels, where the corpus is not there; without loaders then.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus or its metadata is missing or malformed.
    """

    tag = "voxceleb1"

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
        datasets, labels = _read_corpus(data) if label_state is None else ({}, Labels(label_state))
        super().__init__(
            upstream_dim,
            expdir,
            seed=seed,
            loader=data,
            model=config.modelrc,
            datasets=datasets,
            labels=labels,
            accuracy=config.accuracy,
        )


def _read_corpus(data: DataConfig) -> tuple[dict[str, AudioDataset], Labels]:
    splits = read_metadata(Path(data.meta_data), Path(data.file_path))
    speakers = labels_of(utterance for utterances in splits.values() for utterance in utterances)
    crops = {"train": data.max_timestep}
    return {split: SpeakerDataset(rows, speakers, crops.get(split)) for split, rows in splits.items()}, speakers
