"""SUPERB's task heads, with the parameter names of S3PRL's (``s3prl/downstream/model.py``)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s3prl_interfaces.errors import ConfigError


class FrameLevel(nn.Module):
    """A linear layer on every frame."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(input_dim, output_dim)

    def forward(self, features: Tensor) -> Tensor:
        """(..., input_dim) -> (..., output_dim)."""
        return self.linear(features)


class UtteranceLevel(nn.Module):
    """The mean over an utterance's own frames, then a linear layer (SUPERB's SID, ER, IC and KS)."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.post_net = FrameLevel(input_dim, output_dim)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Classify utterances.

        Args:
            features: (batch, time, input_dim), padded.
            lengths: (batch,) frames per utterance; what lies beyond has no influence.

        Returns:
            (batch, output_dim) logits. An utterance without a frame counts as zeros.
        """
        frames = torch.arange(features.size(1), device=features.device)
        padding = frames >= lengths.unsqueeze(1)
        total = features.masked_fill(padding.unsqueeze(2), 0).sum(dim=1)
        return self.post_net(total / lengths.clamp(min=1).unsqueeze(1))


@dataclass(frozen=True, kw_only=True)
class RNNsConfig:
    """The ``RNNs`` block: S3PRL's keys, one entry per layer in the lists."""

    total_rate: int = 320
    """Samples per frame after subsampling; -1 leaves the frames as they are."""
    module: Literal["LSTM", "GRU", "RNN"] = "LSTM"
    bidirection: bool = True
    dim: tuple[int, ...] = (1024, 1024)
    dropout: tuple[float, ...] = (0.2, 0.2)
    layer_norm: tuple[bool, ...] = (False, False)
    proj: tuple[bool, ...] = (False, False)
    """A linear layer and tanh after the layer."""
    sample_rate: tuple[int, ...] = (1, 1)
    """Of how many frames one is kept after the layer."""
    sample_style: Literal["drop", "concat"] = "concat"
    """How frames are subsampled before the first layer, see ``total_rate``."""


class RNNLayer(nn.Module):
    """A recurrent layer with what may follow it (``s3prl/downstream/asr/model.py``)."""

    def __init__(self, input_dim: int, config: RNNsConfig, index: int) -> None:
        super().__init__()
        dim = config.dim[index]
        self.output_dim = 2 * dim if config.bidirection else dim
        self.layer = getattr(nn, config.module)(input_dim, dim, bidirectional=config.bidirection, batch_first=True)
        self.ln = nn.LayerNorm(self.output_dim) if config.layer_norm[index] else nn.Identity()
        self.dp = nn.Dropout(config.dropout[index])
        self.pj = nn.Linear(self.output_dim, self.output_dim) if config.proj[index] else None
        self.sample_rate = config.sample_rate[index]

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, time, input_dim) and (batch,) frames -> (batch, time', output_dim) and (batch,) frames."""
        # A recurrent layer refuses an utterance without a frame: it gets one of padding, which its length hides.
        packed = pack_padded_sequence(features, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        output = self.dp(self.ln(output))
        if self.sample_rate > 1:
            output, lengths = output[:, :: self.sample_rate], lengths // self.sample_rate
        if self.pj is not None:
            output = torch.tanh(self.pj(output))
        return output, lengths


class RNNs(nn.Module):
    """Recurrent layers, then a linear one on every frame (SUPERB's ASR and SF).

    Args:
        input_dim: width of the features.
        output_dim: how many tokens there are.
        upstream_rate: samples per frame.
        config: the layers.

    Raises:
        ConfigError: the lists are of unlike lengths, or a rate is below the upstream's.
    """

    def __init__(self, input_dim: int, output_dim: int, upstream_rate: int, config: RNNsConfig) -> None:
        super().__init__()
        lists = {name: getattr(config, name) for name in ("dim", "dropout", "layer_norm", "proj", "sample_rate")}
        if len({len(values) for values in lists.values()}) != 1 or not config.dim:
            counts = ", ".join(f"{name} {len(values)}" for name, values in lists.items())
            raise ConfigError(f"`RNNs`: the lists need one entry for each layer, but have {counts}.")
        self.sample_rate = 1 if config.total_rate == -1 else round(config.total_rate / upstream_rate)
        if self.sample_rate < 1 or min(config.sample_rate) < 1:
            raise ConfigError(
                f"`RNNs`: total_rate {config.total_rate} (the upstream has {upstream_rate} samples per frame) and "
                f"sample_rate {list(config.sample_rate)} must keep one of 1 or more frames; total_rate -1 keeps all."
            )
        self.concat = config.sample_style == "concat"
        width = input_dim * self.sample_rate if self.concat else input_dim
        self.rnns = nn.ModuleList()
        for index in range(len(config.dim)):
            self.rnns.append(RNNLayer(width, config, index))
            width = 2 * config.dim[index] if config.bidirection else config.dim[index]
        self.linear = nn.Linear(width, output_dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of each frame.

        Args:
            features: (batch, time, input_dim), padded.
            lengths: (batch,) frames per utterance, on the CPU.

        Returns:
            (batch, time', output_dim) and (batch,) frames per utterance, fewer if frames are subsampled.
        """
        if self.sample_rate > 1:
            features, lengths = self._subsample(features), lengths // self.sample_rate
        for rnn in self.rnns:
            features, lengths = rnn(features, lengths)
        return self.linear(features), lengths

    def _subsample(self, features: Tensor) -> Tensor:
        if not self.concat:
            return features[:, :: self.sample_rate]
        batch, time, width = features.shape
        whole = time // self.sample_rate
        return features[:, : whole * self.sample_rate].reshape(batch, whole, width * self.sample_rate)
