"""SUPERB's IC as S3PRL runs it (``s3prl/downstream/fluent_commands``): three slots, all must be right."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from downstream_tasks.ic.dataset import FILES, FluentCommandsDataset, labels_of, read_split
from downstream_tasks.labels import Labels
from downstream_tasks.loading import AudioDataset
from downstream_tasks.utterance_level import LoaderConfig, ModelConfig, UtteranceExpert
from s3prl_interfaces.schema import read_block


@dataclass(frozen=True, kw_only=True)
class DataConfig(LoaderConfig):
    """The ``datarc`` block."""

    file_path: str
    """The folder that holds data/ and wavs/."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: ModelConfig = field(default_factory=ModelConfig)


class DownstreamExpert(UtteranceExpert):
    """Intent classification on Fluent Speech Commands.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where predictions go.
        seed: of the order of the data.
        label_state: what a checkpoint says of the labels, where the corpus is not there; without loaders then.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus is missing or malformed.
    """

    tag = "fluent_commands"
    loss_name = "intent_loss"
    suffix = "csv"
    separator = ","

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
        datasets, labels = _read_corpus(config.datarc) if label_state is None else ({}, Labels(label_state))
        super().__init__(
            upstream_dim,
            expdir,
            seed=seed,
            loader=config.datarc,
            model=config.modelrc,
            datasets=datasets,
            labels=labels,
        )


def _read_corpus(data: DataConfig) -> tuple[dict[str, AudioDataset], Labels]:
    commands = {split: read_split(Path(data.file_path), split) for split in FILES}
    labels = labels_of(commands["train"])
    return {split: FluentCommandsDataset(rows, labels) for split, rows in commands.items()}, labels
