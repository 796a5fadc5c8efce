"""Weighted Sum (WS), the baseline.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1;
first used by SUPERB (Yang et al. 2021) and the default of S3PRL.

    features = sum_l softmax(weights)[l] * hidden_states[l]

Differences from S3PRL's Featurizer and from the reference code: the sum runs layer by layer instead of over a
stack of all layers, and is kept in float32 for half-precision states. The parameter has S3PRL's name,
``weights``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface, LayerWeights, at_least_float32
from s3prl_interfaces.interfaces.registry import register_interface
from s3prl_interfaces.interfaces.sums import to_rows, weighted_sum


@register_interface("weighted_sum", paper="arXiv 2406.12209, Table 1: Weighted Sum")
class WeightedSum(Interface):
    """Softmax-weighted sum of all layers; the baseline, and S3PRL's default.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        normalize: Layer-normalise each hidden state first.

    Attributes:
        weights: Shape (L,), before the softmax; zero at the start, so that all layers count alike.
    """

    def __init__(self, num_layers: int, feature_dim: int, *, normalize: bool = False) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)
        self.weights = nn.Parameter(torch.zeros(self.num_layers))

    def reset_parameters(self) -> None:
        """Let all layers count alike."""
        nn.init.zeros_(self.weights)

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Sum L states (B, T, D) to (B, T, D)."""
        rows, back = to_rows(layers)
        return back(weighted_sum(rows, softmax(self.weights)))

    def layer_weights(
        self,
        hidden_states: Sequence[Tensor] | Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> LayerWeights:
        """The softmax weights, in one row."""
        return LayerWeights("softmax weights", ["all layers"], softmax(self.weights.detach())[None])


def softmax(weights: Tensor) -> Tensor:
    """Shares that add up to 1, in at least float32, from weights of shape (L,)."""
    return at_least_float32(weights).softmax(dim=0)
