"""Single layer.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209); the best
single layer is what several interfaces are measured against.

    features = hidden_states[layer]

No parameters. The released reference code has a config for it, but no class.
"""

from collections.abc import Sequence

from torch import Tensor

from s3prl_interfaces.interfaces.base import Interface, check_int
from s3prl_interfaces.interfaces.registry import register_interface


@register_interface("single_layer", paper="arXiv 2406.12209")
class SingleLayer(Interface):
    """One hidden state of choice.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        layer: Which, from 0 (the output of the feature encoder) to L - 1, or from -1 (the last) back to -L.
        normalize: Layer-normalise the hidden state.

    Raises:
        ValueError: There is no such layer.
    """

    def __init__(self, num_layers: int, feature_dim: int, *, layer: int = -1, normalize: bool = False) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)
        self.layer = check_int("layer", layer, minimum=-self.num_layers)
        if self.layer >= self.num_layers:
            raise ValueError(f"`layer` must be at most {self.num_layers - 1}, but is {layer}.")

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Return one of L states (B, T, D)."""
        return layers[self.layer]

    def extra_repr(self) -> str:
        """Show the layer beside the sizes."""
        return f"{super().extra_repr()}, layer={self.layer}"
