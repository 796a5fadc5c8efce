"""Last layer.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209); the
common practice that weighted sums replaced.

    features = hidden_states[L - 1]

No parameters. The released reference code does not have it.
"""

from collections.abc import Sequence

from torch import Tensor

from s3prl_interfaces.interfaces.base import Interface
from s3prl_interfaces.interfaces.registry import register_interface


@register_interface("last_layer", paper="arXiv 2406.12209")
class LastLayer(Interface):
    """The last hidden state alone.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        normalize: Layer-normalise the hidden state.
    """

    def __init__(self, num_layers: int, feature_dim: int, *, normalize: bool = False) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Return the last of L states (B, T, D)."""
        return layers[-1]
