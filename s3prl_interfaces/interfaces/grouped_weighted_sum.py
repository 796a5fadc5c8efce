"""Grouped Weighted Sum.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1,
"Grouped WS" with K = 2, 3, 4.

    split the layers into K contiguous groups
    features = projection(concat_k sum_{l in group k} softmax(weights[k])[l] * hidden_states[l])

The released reference code does not have it. Not settled by the paper, hence ours: how L layers are split
when K does not divide L (as ``torch.tensor_split`` does: sizes differ by one at most, larger groups first; 13
layers in two are 7 + 6), the start (weights at zero, the projection as ``nn.Linear``), and the default K = 2,
which of the paper's three has the lowest mean error in Table 1 (10 minutes and 1 hour).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface, LayerWeights, check_int
from s3prl_interfaces.interfaces.registry import register_interface
from s3prl_interfaces.interfaces.sums import sums_of_products, to_rows, weighted_sum
from s3prl_interfaces.interfaces.weighted_sum import softmax


@register_interface("grouped_weighted_sum", paper="arXiv 2406.12209, Table 1: Grouped WS, K = 2, 3, 4", min_layers=2)
class GroupedWeightedSum(Interface):
    """Weighted sum within each of K groups of neighbouring layers; concatenated and projected.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        num_groups: K, from 1 to L.
        normalize: Layer-normalise each hidden state first.

    Attributes:
        group_sizes: Layers in each group; they add up to L.
        weights: K vectors of ``group_sizes[k]`` weights, before the softmax, zero at the start.
        projection: Linear, K * D to D, on the groups in layer order.

    Raises:
        ValueError: ``num_groups`` is not an integer from 1 to L.
    """

    def __init__(self, num_layers: int, feature_dim: int, *, num_groups: int = 2, normalize: bool = False) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)
        groups = check_int("num_groups", num_groups)
        if groups > self.num_layers:
            raise ValueError(f"`num_groups` must be at most the number of layers, {num_layers}, but is {groups}.")
        size, larger = divmod(self.num_layers, groups)
        self.group_sizes = [size + 1] * larger + [size] * (groups - larger)
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(size)) for size in self.group_sizes])
        self.projection = nn.Linear(groups * self.feature_dim, self.feature_dim)

    def reset_parameters(self) -> None:
        """Let all layers of a group count alike, and draw the projection anew."""
        for weights in self.weights:
            nn.init.zeros_(weights)
        self.projection.reset_parameters()

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Turn L states (B, T, D) into K sums, then into (B, T, D)."""
        rows, back = to_rows(layers)
        groups, start = [], 0
        for weights in self.weights:
            stop = start + len(weights)
            groups.append(weighted_sum(rows[start:stop], softmax(weights)).to(layers[0].dtype))
            start = stop
        # (D, K * D) as K matrices (D, D): the sums need not be joined.
        matrices = self.projection.weight.unflatten(1, (len(groups), -1)).transpose(0, 1)
        terms = [[(index, index) for index in range(len(groups))]]
        (features,) = sums_of_products(groups, matrices, self.projection.bias, terms)
        return back(features)

    def layer_weights(
        self,
        hidden_states: Sequence[Tensor] | Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> LayerWeights:
        """The softmax weights of each group in a row, zero for the layers of the others.

        They say nothing of how much the projection makes of each group.
        """
        rows = [f"group {number}" for number in range(1, len(self.weights) + 1)]
        values = torch.block_diag(*(softmax(weights.detach()) for weights in self.weights))
        return LayerWeights("softmax weights of each group", rows, values)

    def extra_repr(self) -> str:
        """Show the groups beside the sizes."""
        return f"{super().extra_repr()}, group_sizes={self.group_sizes}"
