"""SUPERB's task heads, with the parameter names of S3PRL's (``s3prl/downstream/model.py``)."""

import torch
from torch import Tensor, nn


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
