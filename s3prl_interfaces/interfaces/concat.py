"""Concatenation and projection.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1,
"Concat + Proj".

    features = projection(concat_l hidden_states[l])        L * D -> D

The released reference code does not have it. Here the concatenation is never made: the product with the
projection is the sum over layers of the products with that layer's block of columns,

    features = bias + sum_l weight[:, l * D : (l + 1) * D] @ hidden_states[l]
"""

from collections.abc import Sequence

from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface
from s3prl_interfaces.interfaces.registry import register_interface
from s3prl_interfaces.interfaces.sums import sums_of_products, to_rows


@register_interface("concat", paper="arXiv 2406.12209, Table 1: Concat + Proj")
class Concat(Interface):
    """All layers concatenated, then projected to the width of one.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        normalize: Layer-normalise each hidden state first.

    Attributes:
        projection: Linear, L * D to D, on the layers in order.
    """

    def __init__(self, num_layers: int, feature_dim: int, *, normalize: bool = False) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)
        self.projection = nn.Linear(self.num_layers * self.feature_dim, self.feature_dim)

    def reset_parameters(self) -> None:
        """Draw the projection anew."""
        self.projection.reset_parameters()

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Project L states (B, T, D) to (B, T, D)."""
        # (D, L * D) as L matrices (D, D): views, and so are those of the gradient.
        matrices = self.projection.weight.unflatten(1, (self.num_layers, -1)).transpose(0, 1)
        terms = [[(index, index) for index in range(self.num_layers)]]
        rows, back = to_rows(layers)
        (features,) = sums_of_products(rows, matrices, self.projection.bias, terms)
        return back(features)
