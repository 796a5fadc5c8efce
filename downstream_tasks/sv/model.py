"""SUPERB's x-vector and AM-softmax, with the parameter names of S3PRL's (``s3prl/downstream/sv_voxceleb1/model.py``).

Shapes: B batch, T frames, H width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, relu

SHRINK = 14
"""How many frames fewer come out of the TDNN than go in."""
MIN_FRAMES = SHRINK + 2
"""Frames that an utterance must have: a standard deviation needs two."""


class TDNN(nn.Module):
    """A linear layer and ReLU over frames ``t, t + dilation, ...``: a convolution without padding."""

    def __init__(self, input_dim: int, output_dim: int, context_size: int, dilation: int, dropout_p: float) -> None:
        super().__init__()
        self.context_size = context_size
        self.dilation = dilation
        self.kernel = nn.Linear(input_dim * context_size, output_dim)
        self.drop = nn.Dropout(dropout_p)

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, input_dim) -> (B, T - (context_size - 1) * dilation, output_dim)."""
        frames = features.size(1) - (self.context_size - 1) * self.dilation
        starts = range(0, self.context_size * self.dilation, self.dilation)
        windows = torch.cat([features[:, start : start + frames] for start in starts], dim=2)
        return self.drop(relu(self.kernel(windows)))


class XVector(nn.Module):
    """Five TDNN layers."""

    def __init__(self, input_dim: int, agg_dim: int, dropout_p: float) -> None:
        super().__init__()
        self.module = nn.Sequential(
            TDNN(input_dim, input_dim, context_size=5, dilation=1, dropout_p=dropout_p),
            TDNN(input_dim, input_dim, context_size=3, dilation=2, dropout_p=dropout_p),
            TDNN(input_dim, input_dim, context_size=3, dilation=3, dropout_p=dropout_p),
            TDNN(input_dim, input_dim, context_size=1, dilation=1, dropout_p=dropout_p),
            TDNN(input_dim, agg_dim, context_size=1, dilation=1, dropout_p=dropout_p),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, T, input_dim) -> (B, T - SHRINK, agg_dim)."""
        return self.module(features)


class UtteranceExtractor(nn.Module):
    """Two linear layers with ReLU; the first one's output is the embedding, the second is for training alone."""

    def __init__(self, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(input_dim, output_dim)
        self.linear2 = nn.Linear(output_dim, output_dim)

    def forward(self, pooled: Tensor) -> Tensor:
        """(B, input_dim) -> (B, output_dim), for the loss."""
        return relu(self.linear2(self.embed(pooled)))

    def embed(self, pooled: Tensor) -> Tensor:
        """(B, input_dim) -> (B, output_dim), for trials."""
        return relu(self.linear1(pooled))


class SpeakerModel(nn.Module):
    """X-vector, statistics pooling, utterance extractor."""

    def __init__(self, input_dim: int, agg_dim: int, dropout_p: float) -> None:
        super().__init__()
        self.framelevel_feature_extractor = XVector(input_dim, agg_dim, dropout_p)
        self.utterancelevel_feature_extractor = UtteranceExtractor(2 * agg_dim, input_dim)

    def forward(self, features: Tensor, counts: Sequence[int]) -> Tensor:
        """What the loss sees.

        Args:
            features: (B, T, input_dim), padded.
            counts: of how many of each utterance's ``T - SHRINK`` frames the statistics are.

        Returns:
            (B, input_dim).
        """
        pooled = pool_statistics(self.framelevel_feature_extractor(features), counts)
        return self.utterancelevel_feature_extractor(pooled)

    def embed(self, features: Tensor, counts: Sequence[int]) -> Tensor:
        """As :meth:`forward`, but the embeddings that trials compare."""
        pooled = pool_statistics(self.framelevel_feature_extractor(features), counts)
        return self.utterancelevel_feature_extractor.embed(pooled)


def pool_statistics(frames: Tensor, counts: Sequence[int]) -> Tensor:
    """Mean and (unbiased) standard deviation over each utterance's first frames.

    Args:
        frames: (B, T, H).
        counts: how many frames of each utterance count, 2 or more.

    Returns:
        (B, 2 H).
    """
    # One by one: torch.std's gradient is zero, not NaN, where a unit is the same in all frames.
    valid = [row[:count] for row, count in zip(frames, counts, strict=True)]
    return torch.stack([torch.cat([rows.mean(dim=0), rows.std(dim=0)]) for rows in valid])


def pool_counts(lengths: Sequence[int], with_padded_frame: bool) -> list[int]:
    """Of how many frames the statistics of each utterance of a batch are.

    Args:
        lengths: frames of each utterance before the TDNN.
        with_padded_frame: count one frame too many of every utterance that is padded, as S3PRL.
    """
    longest = max(lengths)
    return [length - SHRINK + (with_padded_frame and length < longest) for length in lengths]


def long_enough(feature: Tensor) -> Tensor:
    """Repeat the last frame of an utterance of fewer than ``MIN_FRAMES`` frames; (T, H) -> (max(T, MIN_FRAMES), H).

    S3PRL cannot embed an utterance of fewer than 15 frames, and makes NaN of one of 15. Training has none of either in
    SUPERB, where utterances are longer than 2 s.
    """
    missing = MIN_FRAMES - len(feature)
    if missing <= 0:
        return feature
    last = feature[-1:] if len(feature) else feature.new_zeros(1, feature.size(1))
    return torch.cat([feature, last.expand(missing, -1)])


class AMSoftmaxLoss(nn.Module):
    """Cross-entropy of ``s * (cosine - m)`` for the right speaker and ``s * cosine`` for the others.

    Wang et al., "Additive Margin Softmax for Face Verification", https://arxiv.org/abs/1801.05599, equation 6.
    """

    def __init__(self, hidden_dim: int, speaker_num: int, s: float, m: float) -> None:
        super().__init__()
        self.s = s
        self.m = m
        self.W = nn.Parameter(torch.empty(hidden_dim, speaker_num))
        nn.init.xavier_normal_(self.W)

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """(B, hidden_dim), (B,) -> a scalar, the mean over the batch."""
        cosines = normalize(vectors, dim=1) @ normalize(self.W, dim=0)
        margins = self.m * nn.functional.one_hot(labels, cosines.size(1))
        return cross_entropy(self.s * (cosines - margins), labels)
