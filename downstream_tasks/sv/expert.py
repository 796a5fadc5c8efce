"""SUPERB's SV as S3PRL runs it (``s3prl/downstream/sv_voxceleb1``): an x-vector, trials scored by cosine, EER."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from downstream_tasks.loading import generator_of, make_loader, plain_batches, tell_skipped
from downstream_tasks.records import mean
from downstream_tasks.score import Score
from downstream_tasks.sv.dataset import (
    FOLDERS,
    TrainingDataset,
    Trial,
    TrialDataset,
    check_files,
    files_of,
    long_files,
    read_trials,
    speakers_of,
    transform,
)
from downstream_tasks.sv.metrics import equal_error_rate, min_dcf
from downstream_tasks.sv.model import AMSoftmaxLoss, SpeakerModel, long_enough, pool_counts
from downstream_tasks.utterance_level import LoaderConfig
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.schema import read_block

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VadConfig:
    """The ``vad_config`` block."""

    min_sec: float = 32000
    """Training utterances must be longer than this after the effects: in SAMPLES, whatever S3PRL's name says."""
    chunk_size: Any = None
    """Of older versions of S3PRL; nothing reads it."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(LoaderConfig):
    """The ``datarc`` block."""

    file_path: str
    """The folder that holds dev/wav and test/wav."""
    test_meta_data: str
    """The test trials; S3PRL's voxceleb1_test_v2.txt."""
    dev_meta_data: str | None = None
    """The dev trials, over some speakers of dev/wav; S3PRL's dev_meta_data.txt."""
    train_meta_data: Any = None
    """S3PRL's config states it; nothing reads it, in S3PRL neither."""
    max_timestep: int | None = None
    """Longest piece of a training utterance, in samples; longer ones are cropped at random."""
    vad_config: VadConfig = field(default_factory=VadConfig)
    train_batch_size: int = 10
    eval_batch_size: int = 1
    num_workers: int = 8
    silence: Literal["removed", "kept"] = "removed"
    """SUPERB: ``removed``, by sox's effect, in training and test; pauses, which are a speaker's too, and audio that is
    quiet throughout are lost. ``kept`` hands the upstream what was recorded (3 dB quieter, as SUPERB), and then
    ``vad_config.min_sec`` is of the whole file."""
    checkpoint_rule: Literal["best_of_test", "dev"] = "best_of_test"
    """Which weights are scored. SUPERB evaluates those of steps 20000, 40000, ..., 200000 on the test trials and
    reports the lowest EER: test data chooses. ``dev`` is sounder: the dev trials choose. The split that chooses must be
    in ``runner.eval_dataloaders``."""
    hold_out_dev_speakers: bool = False
    """SUPERB trains on the speakers of the dev trials too. True is sounder where dev chooses: they are left out."""


@dataclass(frozen=True, kw_only=True)
class XVectorConfig:
    """The ``XVector`` block."""

    agg_dim: int = 1500
    dropout_p: float = 0.0
    batch_norm: Literal[False] = False


@dataclass(frozen=True, kw_only=True)
class ModuleConfig:
    """The ``module_config`` block."""

    XVector: XVectorConfig = field(default_factory=XVectorConfig)
    Identity: Any = None
    """Settings of a module that SUPERB does not use. S3PRL's config states them; nothing reads them."""


@dataclass(frozen=True, kw_only=True)
class AMSoftmaxConfig:
    """The ``AMSoftmaxLoss`` block."""

    s: float = 30.0
    m: float = 0.4


@dataclass(frozen=True, kw_only=True)
class LossesConfig:
    """The ``LossConfig`` block."""

    AMSoftmaxLoss: AMSoftmaxConfig = field(default_factory=AMSoftmaxConfig)
    SoftmaxLoss: Any = None
    AAMSoftmaxLoss: Any = None
    """Settings of losses that SUPERB does not use. S3PRL's config states them; nothing reads them."""


@dataclass(frozen=True, kw_only=True)
class SpeakerModelConfig:
    """The ``modelrc`` block."""

    input_dim: int = 512
    module: Literal["XVector"] = "XVector"
    agg_module: Literal["SP"] = "SP"
    utter_module: Literal["UtteranceExtractor"] = "UtteranceExtractor"
    module_config: ModuleConfig = field(default_factory=ModuleConfig)
    ObjectiveLoss: Literal["AMSoftmaxLoss"] = "AMSoftmaxLoss"
    LossConfig: LossesConfig = field(default_factory=LossesConfig)
    pooling_mask: Literal["superb", "exact"] = "superb"
    """Which frames the statistics of a padded training utterance are over. S3PRL, and so SUPERB, takes one frame too
    many, the first that sees padding (D18). ``exact`` is sounder: the utterance's own frames. Evaluation is exact in
    both, where an utterance is embedded as if it were alone, as in SUPERB."""


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """The ``downstream_expert`` block."""

    datarc: DataConfig
    modelrc: SpeakerModelConfig = field(default_factory=SpeakerModelConfig)


class DownstreamExpert(nn.Module):
    """Speaker verification on VoxCeleb1, behind S3PRL's ``DownstreamExpert`` protocol.

    Parameters have the names of S3PRL's expert, so its checkpoints load.

    Args:
        upstream_dim: width of the features.
        downstream_expert: the config's block, see :class:`ExpertConfig`.
        expdir: where scores and embeddings go.
        seed: of the order of the data.
        label_state: what a checkpoint says of the training speakers, where the corpus is not there; without loaders
            then.
        runner: the config's block, to see that the split which chooses the weights is evaluated.
        mode: the run's.

    Attributes:
        selects_on: the split whose EER chooses the weights that are scored.
        protocol: the options by which SUPERB's protocol and a sounder way differ, with the values that are used.
        speakers: those that are trained on, in the order of their labels.

    Raises:
        ConfigError: a key that nothing reads, or a value that does not fit.
        DataError: the corpus or a list of trials is missing or malformed.
    """

    score = Score("EER", "test", higher_is_better=False)
    best_score: Tensor

    def __init__(
        self,
        upstream_dim: int,
        downstream_expert: dict[str, Any],
        expdir: str,
        seed: int = 1337,
        label_state: Sequence[str] | None = None,
        runner: Mapping[str, Any] | None = None,
        mode: str = "train",
        **_: Any,
    ) -> None:
        super().__init__()
        config = read_block(ExpertConfig, downstream_expert, "downstream_expert")
        data, model = config.datarc, config.modelrc
        self.expdir = Path(expdir)
        self.seed = seed
        self.loader = data
        self.selects_on = "test" if data.checkpoint_rule == "best_of_test" else "dev"
        self.pooling_mask = model.pooling_mask
        self.keep_silence = data.silence == "kept"
        self.protocol: dict[str, Any] = {
            "checkpoint_rule": data.checkpoint_rule,
            "hold_out_dev_speakers": data.hold_out_dev_speakers,
            "pooling_mask": model.pooling_mask,
            "silence": data.silence,
        }
        self.trials: dict[str, list[Trial]] = {}
        self.datasets: dict[str, TrainingDataset | TrialDataset] = {}
        self.speakers = self._read_corpus(data) if label_state is None else list(label_state)
        if mode == "train" and runner is not None and self.selects_on not in (runner.get("eval_dataloaders") or ()):
            log.warning(
                "`checkpoint_rule: %s` chooses by the split %s, which is not in `runner.eval_dataloaders`: the weights "
                "of the last step will be scored.",
                data.checkpoint_rule,
                self.selects_on,
            )
        self.connector = nn.Linear(upstream_dim, model.input_dim)
        xvector = model.module_config.XVector
        self.model = SpeakerModel(model.input_dim, xvector.agg_dim, xvector.dropout_p)
        loss = model.LossConfig.AMSoftmaxLoss
        self.objective = AMSoftmaxLoss(model.input_dim, len(self.speakers), loss.s, loss.m)
        self.register_buffer("best_score", torch.full((1,), 100.0))
        self._inferred: set[str] = set()

    def _read_corpus(self, data: DataConfig) -> list[str]:
        """Make the datasets; returns the training speakers."""
        root = Path(data.file_path)
        for split, path in (("test", data.test_meta_data), ("dev", data.dev_meta_data)):
            if path is None:
                continue
            self.trials[split] = read_trials(Path(path), f"downstream_expert.datarc.{split}_meta_data")
            self.datasets[split] = TrialDataset(
                root / FOLDERS[split], files_of(self.trials[split]), keep_silence=self.keep_silence
            )
            if not data.skip_bad_audio:
                check_files(root / FOLDERS[split], files_of(self.trials[split]), Path(path))
        if "dev" not in self.trials and (data.checkpoint_rule == "dev" or data.hold_out_dev_speakers):
            raise ConfigError(
                "`downstream_expert.datarc.dev_meta_data` is missing: `checkpoint_rule: dev` and "
                "`hold_out_dev_speakers: true` need the dev trials."
            )
        files = long_files(root, data.vad_config.min_sec, data.skip_bad_audio, keep_silence=self.keep_silence)
        if data.hold_out_dev_speakers:
            held_out = speakers_of(files_of(self.trials["dev"]))
            files = {speaker: mine for speaker, mine in files.items() if speaker not in held_out}
            if not any(files.values()):
                raise DataError(f"{data.dev_meta_data} names every speaker: `hold_out_dev_speakers` leaves none.")
        self.datasets["train"] = TrainingDataset(root, files, data.max_timestep, keep_silence=self.keep_silence)
        return list(files)

    def share_corpus(self, other: "DownstreamExpert") -> None:
        """Let an expert of the same config that was made from :meth:`label_state` use this one's corpus."""
        other.datasets, other.trials = self.datasets, self.trials

    def get_dataloader(self, split: str, epoch: int = 0) -> DataLoader:
        """Batches of one epoch of a split: ``(wavs, names, labels)`` of train, ``(wavs, files)`` of dev and test.

        Raises:
            KeyError: there is no such split; ``dev`` is there only with ``dev_meta_data``.
        """
        dataset = self.datasets[split]
        generator = generator_of(self.seed, split, epoch) if split == "train" else None
        return make_loader(
            dataset,
            plain_batches(len(dataset), self.loader.batch_size_of(split), generator),
            self.loader,
            seed=self.seed,
            split=split,
            epoch=epoch,
        )

    def label_state(self) -> list[str]:
        """What a checkpoint keeps so that the head can be made without its corpus."""
        return self.speakers

    def transform(self, wav: np.ndarray) -> np.ndarray:
        """Apply the effects to an utterance that is in no corpus; (samples,) float32 at 16 kHz.

        Raises:
            DataError: too little of it is sound.
        """
        return transform(wav, "An utterance", keep_silence=self.keep_silence)

    def forward(
        self,
        split: str,
        features: Sequence[Tensor],
        names: Sequence[str],
        labels: Sequence[int] | None = None,
        *,
        records: dict[str, list[Any]],
        **_: Any,
    ) -> Tensor:
        """Loss of a training batch; outside training embed the utterances.

        Args:
            split: which split the batch is of.
            features: one (frames, upstream_dim) tensor per utterance.
            names: of the utterances; outside training their files.
            labels: their speakers, in training.
            records: gets the loss per training batch, or each utterance's name and normalised embedding.

        Returns:
            A scalar, 0 outside training.
        """
        if split != "train":
            records["name"] += names
            records["embedding"] += self._embed(features).detach().float().cpu()
            return torch.zeros(())
        padded, lengths = self._project(features)
        vectors = self.model(padded, pool_counts(lengths, with_padded_frame=self.pooling_mask == "superb"))
        loss = self.objective(vectors, torch.as_tensor(labels, device=vectors.device))
        records["loss"].append(loss.detach())
        return loss

    def log_records(
        self, split: str, records: dict[str, list[Any]], logger: Any, global_step: int, **_: Any
    ) -> list[str]:
        """Log the training loss; outside training score the trials, log EER and minDCF and write the scores.

        ``<split>_predict.txt`` has lines ``<pair> <score>``, ``<split>_truth.txt`` lines ``<pair> <0|1>``. S3PRL does
        not log minDCF, and its truth is always empty (D22).

        Returns:
            ``["<selects_on>-best.ckpt"]`` when the EER of that split is strictly the lowest so far, else nothing.

        Raises:
            DataError: no trial of one of the two kinds can be scored, as too many files were left out.
        """
        if split == "train":
            logger.add_scalar(f"sv-voxceleb1/{split}-loss", mean(records["loss"]), global_step=global_step)
            return []
        tell_skipped(split, len(records["name"]), len(self.datasets[split]))
        place = {name: index for index, name in enumerate(records["name"])}
        trials = [trial for trial in self.trials[split] if trial.first in place and trial.second in place]
        tell_skipped(split, len(trials), len(self.trials[split]), "trials")
        targets = np.array([trial.target for trial in trials], dtype=bool)
        if len(set(targets.tolist())) < 2:
            raise DataError(f"Split {split} has no EER: of its trials, too few could be scored ({len(trials)}).")
        embeddings = torch.stack(records["embedding"])
        first, second = (
            embeddings[[place[file] for file in files]]
            for files in ([trial.first for trial in trials], [trial.second for trial in trials])
        )
        scores = (first * second).sum(dim=1).numpy()
        eer = equal_error_rate(targets, scores)
        logger.add_scalar(f"sv-voxceleb1/{split}-EER", eer, global_step=global_step)
        logger.add_scalar(f"sv-voxceleb1/{split}-minDCF", min_dcf(targets, scores), global_step=global_step)
        self._write(f"{split}_predict.txt", trials, scores)
        self._write(f"{split}_truth.txt", trials, targets.astype(int))
        if split != self.selects_on or torch.tensor(eer) >= self.best_score.item():
            return []
        self.best_score.fill_(eer)
        return [f"{split}-best.ckpt"]

    def predict(self, features: Sequence[Tensor]) -> list[dict[str, np.ndarray]]:
        """Embeddings of utterances: (input_dim,) float32 of length 1. The dot product of two is their score."""
        return [{"embedding": embedding} for embedding in self._embed(features).detach().float().cpu().numpy()]

    def inference(self, features: Sequence[Tensor], names: Sequence[str]) -> list[dict[str, str]]:
        """Embed utterances that are in no corpus; whether two are of one speaker is for the user to decide.

        Each embedding (see :meth:`predict`) is written to ``<expdir>/embeddings/<name>.npy``; ``inference.txt`` gets a
        line ``<name> embeddings/<name>.npy``. The second file of a name in a run is ``<name>-2``, and so on, in
        the order of the files.
        """
        answers = []
        folder = self.expdir / "embeddings"
        folder.mkdir(exist_ok=True)
        for name, answer in zip(names, self.predict(features), strict=True):
            candidates = chain([name], (f"{name}-{number}" for number in count(2)))
            unique = next(candidate for candidate in candidates if candidate not in self._inferred)
            self._inferred.add(unique)
            np.save(folder / f"{unique}.npy", answer["embedding"])
            answers.append({"embedding": str(folder / f"{unique}.npy")})
            with (self.expdir / "inference.txt").open("a", encoding="utf-8") as handle:
                handle.write(f"{name} embeddings/{unique}.npy\n")
        return answers

    def _embed(self, features: Sequence[Tensor]) -> Tensor:
        """(batch, input_dim) of length 1, each as if the utterance were alone."""
        padded, lengths = self._project(features)
        return normalize(self.model.embed(padded, pool_counts(lengths, with_padded_frame=False)), dim=1)

    def _project(self, features: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
        """(batch, time, input_dim), padded, and frames per utterance. Padding is the connector's bias, as in S3PRL."""
        long = [long_enough(feature) for feature in features]
        return self.connector(pad_sequence(long, batch_first=True)), [len(feature) for feature in long]

    def _write(self, file: str, trials: Sequence[Trial], values: Sequence[Any] | np.ndarray) -> None:
        lines = [f"{trial.name} {value}\n" for trial, value in zip(trials, values, strict=True)]
        (self.expdir / file).write_text("".join(lines), encoding="utf-8")
