"""A trained upstream + interface + head for use: predictions and features of audio that is in no corpus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from downstream_tasks.audio import MIN_SAMPLES, load_audio
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner.batches import to_device
from s3prl_interfaces.runner.lane import Lane

Audio = str | Path | np.ndarray | Tensor


class TrainedModel:
    """What a checkpoint holds, in eval mode; made by :func:`s3prl_interfaces.load_experiment`.

    Attributes:
        upstream: the speech model.
        featurizer: the interface behind S3PRL's featurizer contract.
        head: the task's ``DownstreamExpert``.
        config: the merged config of the run.
        device: where the models are.
    """

    def __init__(self, upstream: nn.Module, lane: Lane, device: torch.device) -> None:
        self.upstream = upstream.eval()
        self.featurizer = lane.featurizer.eval()
        self.head = lane.head.eval()
        self.config = lane.config
        self.device = device

    def features(self, wavs: Sequence[Audio], *, batch_size: int = 1) -> list[Tensor]:
        """The interface's features, as the head gets them.

        Args:
            wavs: utterances, each an audio file or (samples,) floats at 16 kHz.
            batch_size: utterances that go through the upstream at once. Some upstreams give other values where
                utterances are padded to a common length.

        Returns:
            One (frames, output_dim) float32 tensor per utterance, on :attr:`device`.

        Raises:
            DataError: an utterance cannot be read, is not one-dimensional, or is shorter than one frame (25 ms).
        """
        return [feature for batch in self._batches(wavs, batch_size) for feature in batch]

    def predict(self, wavs: Sequence[Audio], *, batch_size: int = 1) -> list[dict[str, Any]]:
        """What the head says of utterances; writes no file.

        Args:
            wavs: utterances, each an audio file or (samples,) floats at 16 kHz.
            batch_size: utterances that go through the upstream at once.

        Returns:
            One mapping per utterance: ``{"transcript": ...}``, ``{"speaker": ...}``, ..., by task.

        Raises:
            ConfigError: the task's expert has no ``predict`` (S3PRL's own have none).
            DataError: as :meth:`features`.
        """
        if not hasattr(self.head, "predict"):
            raise ConfigError(f"{type(self.head).__module__} cannot predict: its DownstreamExpert has no `predict`.")
        with torch.no_grad():
            return [answer for batch in self._batches(wavs, batch_size) for answer in self.head.predict(batch)]

    def _batches(self, wavs: Sequence[Audio], batch_size: int) -> Iterator[list[Tensor]]:
        """The features of each batch of utterances."""
        if batch_size < 1:
            raise ConfigError(f"The batch size must be 1 or more, not {batch_size}.")
        for start in range(0, len(wavs), batch_size):
            batch = to_device([read_audio(self.head, wav) for wav in wavs[start : start + batch_size]], self.device)
            with torch.no_grad():
                yield [feature.float() for feature in self.featurizer(batch, self.upstream(batch))]


def read_audio(head: Any, audio: Audio) -> np.ndarray | Tensor:
    """An utterance as a task's upstream gets it.

    Args:
        head: the task's expert. S3PRL's may have a ``load_audio(path)`` of their own, ours a ``transform(wav)`` of
            what was read.
        audio: an audio file, or (samples,) floats at 16 kHz.

    Raises:
        DataError: a file cannot be read, samples are not one-dimensional, or there is less than one frame (25 ms).
    """
    if isinstance(audio, (str, Path)):
        if hasattr(head, "load_audio"):
            return head.load_audio(audio)
        wav: Any = load_audio(Path(audio))
    elif audio.ndim != 1 or len(audio) < MIN_SAMPLES:
        raise DataError(
            f"An utterance must be (samples,) floats at 16 kHz, at least one frame of {MIN_SAMPLES} samples, but has "
            f"the shape {tuple(audio.shape)}."
        )
    else:
        wav = np.asarray(audio.detach().cpu() if isinstance(audio, Tensor) else audio, dtype=np.float32)
    return head.transform(wav) if hasattr(head, "transform") else wav
