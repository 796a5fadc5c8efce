"""CLS Pooling.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1.

    per frame, tokens = [cls, hidden_states[0], ..., hidden_states[L - 1]]
    features = encoder_layer(tokens)[0]

The released reference code does not have it, and the paper says no more than "one Transformer layer" and a
learnable CLS vector. Hence ours: PyTorch's own defaults for the layer (post-norm, ReLU, 2048 hidden units,
dropout 0.1), the number of heads, a CLS vector that starts from a normal distribution of deviation 0.02, and
no position embedding, so that the layer tells hidden states apart by content alone.

Only the first row of the layer's result is wanted, and CLS is the same in every frame. So there is one query, a
head's scores are products of the states with one vector (its key matrix applied to the query), and states are mixed
by their scores before the value matrix is applied to the mixture: no D x D product is left to be done for every layer.
Feed-forward part and norms run on one token instead of L + 1. The result is the same.

What is done for every layer is in the states' dtype (or autocast's), the rest in that of the parameters, which
layer normalisation needs when the states are in half precision.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface, LayerWeights, check_int, valid_frames
from s3prl_interfaces.interfaces.registry import register_interface
from s3prl_interfaces.interfaces.sums import mixture, product_dtype, sums_of_products, to_rows


@register_interface("cls_pooling", paper="arXiv 2406.12209, Table 1: CLS Pooling")
class CLSPooling(Interface):
    """A learnable CLS token attends to the layers of each frame through one Transformer layer.

    Args:
        num_layers: L.
        feature_dim: D; the result has as many channels.
        num_heads: Attention heads, a divisor of D; the largest of 8, 4, 2, 1 that divides D, if not given.
        feedforward_dim: Hidden units of the feed-forward part.
        dropout: Dropout probability within the layer, during training.
        normalize: Layer-normalise each hidden state first.

    Attributes:
        cls: Shape (D,).
        encoder_layer: ``nn.TransformerEncoderLayer``.

    Raises:
        ValueError: ``num_heads`` does not divide D, or ``dropout`` is not a number from 0 to 1.
    """

    def __init__(
        self,
        num_layers: int,
        feature_dim: int,
        *,
        num_heads: int | None = None,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
        normalize: bool = False,
    ) -> None:
        super().__init__(num_layers, feature_dim, normalize=normalize)
        dim = self.feature_dim
        if num_heads is None:
            num_heads = next(heads for heads in (8, 4, 2, 1) if dim % heads == 0)
        if dim % check_int("num_heads", num_heads):
            possible = ", ".join(str(heads) for heads in range(1, min(dim, 64) + 1) if dim % heads == 0)
            raise ValueError(f"`num_heads` must divide the {dim} channels of a state ({possible}), but is {num_heads}.")
        check_int("feedforward_dim", feedforward_dim)
        if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
            raise ValueError(f"`dropout` must be a number from 0 to 1, but is {dropout!r}.")
        self.cls = nn.Parameter(torch.empty(dim))
        self.encoder_layer = nn.TransformerEncoderLayer(
            dim, num_heads, dim_feedforward=feedforward_dim, dropout=dropout, batch_first=True
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the CLS vector and the Transformer layer anew, the latter as PyTorch does."""
        nn.init.normal_(self.cls, std=0.02)
        layer, attention = self.encoder_layer, self.encoder_layer.self_attn
        for module in (attention.out_proj, layer.linear1, layer.linear2, layer.norm1, layer.norm2):
            module.reset_parameters()
        nn.init.xavier_uniform_(attention.in_proj_weight)
        nn.init.zeros_(attention.in_proj_bias)
        nn.init.zeros_(attention.out_proj.bias)

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Pool L states (B, T, D) to (B, T, D)."""
        layer, attention = self.encoder_layer, self.encoder_layer.self_attn
        rows, back = to_rows(layers)
        shares = F.dropout(self._shares(rows), attention.dropout, self.training)
        *_, weight = attention.in_proj_weight.chunk(3)
        *_, bias = attention.in_proj_bias.unflatten(0, (3, attention.num_heads, 1, -1))
        own = F.linear(self.cls, weight).unflatten(0, (attention.num_heads, 1, -1))
        weight = weight.unflatten(0, (attention.num_heads, -1)).transpose(1, 2)  # (H, D, D / H)
        mixed = mixture(rows, shares[..., 1:].to(product_dtype(rows))).transpose(0, 1)  # (H, N, D)
        shares = shares.transpose(0, 1)
        # Of shares that were dropped nothing is left of the values' bias either: their sum is not 1.
        values = torch.bmm(mixed, weight.to(mixed.dtype)) + shares[..., :1] * own + shares.sum(-1, keepdim=True) * bias
        attended = attention.out_proj(values.transpose(0, 1).flatten(1).to(self.cls.dtype))
        pooled = layer.norm1(self.cls + layer.dropout1(attended))
        hidden = layer.dropout(layer.activation(layer.linear1(pooled)))
        return back(layer.norm2(pooled + layer.dropout2(layer.linear2(hidden))))

    def layer_weights(
        self,
        hidden_states: Sequence[Tensor] | Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> LayerWeights:
        """The attention of CLS over the L layers, a row a head; the mean over the valid frames.

        What a row lacks to 1 is the attention of CLS to itself; it is left out, not shared out among the layers.
        """
        if hidden_states is None:
            raise ValueError("`hidden_states` must be given for cls_pooling: its attention depends on them.")
        with torch.no_grad():
            layers, lengths = self.prepare(hidden_states, lengths)
            shares = self._shares([valid_frames(state, lengths) for state in layers])[..., 1:]
        frames, heads = shares.shape[:2]
        rows = [f"head {number}" for number in range(1, heads + 1)]
        return LayerWeights("attention of CLS", rows, shares.sum(0) / max(frames, 1), frames)

    def _shares(self, rows: Sequence[Tensor]) -> Tensor:
        """The attention of CLS over itself and the L layers (N, D), each head's: (N, H, L + 1), at least float32."""
        attention = self.encoder_layer.self_attn
        heads = attention.num_heads
        query_weight, key_weight, _ = attention.in_proj_weight.unflatten(0, (3, heads, -1))
        # Keys without their bias, which adds the same to all scores.
        query = F.linear(self.cls, query_weight.flatten(0, 1), attention.in_proj_bias[: self.feature_dim])
        query = query.unflatten(0, (heads, 1, -1)) / math.sqrt(self.feature_dim // heads)
        compared = torch.bmm(query, key_weight).squeeze(1)  # (H, D): with what a token is multiplied for its scores
        terms = [[(index, 0)] for index in range(len(rows))]
        scores = sums_of_products(rows, compared[None], compared.new_zeros(heads), terms)
        own = F.linear(self.cls.to(compared.dtype), compared).expand_as(scores[0])
        return torch.stack([own.to(scores[0].dtype), *scores], dim=-1).softmax(-1)
