"""SUPERB's SID as S3PRL runs it (``s3prl/downstream/voxceleb1``)."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downstream_tasks.sid.dataset import SpeakerDataset, Speakers, read_metadata
from downstream_tasks.utterance_level import LoaderConfig, ModelConfig, UtteranceExpert
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


class DownstreamExpert(UtteranceExpert):
    """Speaker identification on VoxCeleb1.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the order of the data.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus or its metadata is missing or malformed.
    """

    tag = "voxceleb1"

    def __init__(
        self, upstream_dim: int, downstream_expert: dict[str, Any], expdir: str, seed: int = 1337, **_: Any
    ) -> None:
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        data = config.datarc
        splits = read_metadata(Path(data.meta_data), Path(data.file_path))
        speakers = Speakers([utterance for utterances in splits.values() for utterance in utterances])
        super().__init__(
            upstream_dim,
            expdir,
            seed=seed,
            loader=data,
            model=config.modelrc,
            datasets={
                split: SpeakerDataset(utterances, speakers, data.max_timestep if split == "train" else None)
                for split, utterances in splits.items()
            },
            labels=speakers,
        )
