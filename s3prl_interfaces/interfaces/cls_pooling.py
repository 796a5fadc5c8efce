"""CLS Pooling.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1.

    per frame, tokens = [cls, hidden_states[0], ..., hidden_states[L - 1]]
    features = encoder_layer(tokens)[0]

The released reference code does not have it, and the paper says no more than "one Transformer layer" and a
learnable CLS vector. Hence ours: PyTorch's own defaults for the layer (post-norm, ReLU, 2048 hidden units,
dropout 0.1), the number of heads, a CLS vector that starts from a normal distribution of deviation 0.02, and
no position embedding, so that the layer tells hidden states apart by content alone.

Only the first row of the layer's result is wanted, so that attention is asked for one query and the
feed-forward part runs on one token instead of L + 1. The result is the same. Outside autocast it is computed
in the parameters' dtype, which softmax and layer normalisation need when the states are in half precision.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface, LayerWeights, at_least_float32, check_int, valid_frames
from s3prl_interfaces.interfaces.registry import register_interface

# CUDA's fused attention fails on larger batches (https://github.com/pytorch/pytorch/issues/142228).
MOST_SEQUENCES = 65_535


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
        batch_size, frames, dim = layers[0].shape
        tokens = self._tokens(layers)
        layer = self.encoder_layer
        attended = torch.cat(
            [layer.self_attn(part[:, :1], part, part, need_weights=False)[0] for part in tokens.split(MOST_SEQUENCES)]
        )
        pooled = layer.norm1(tokens[:, :1] + layer.dropout1(attended))
        hidden = layer.dropout(layer.activation(layer.linear1(pooled)))
        pooled = layer.norm2(pooled + layer.dropout2(layer.linear2(hidden)))
        return pooled.reshape(batch_size, frames, dim)

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
            tokens = self._tokens([valid_frames(state, lengths) for state in layers])
            attention = self.encoder_layer.self_attn
            dim, heads = self.feature_dim, attention.num_heads
            query_weight, key_weight, _ = attention.in_proj_weight.chunk(3)
            query = F.linear(self.cls, query_weight, attention.in_proj_bias[:dim]).unflatten(-1, (heads, -1))
            # Without their bias, which adds the same to all scores.
            keys = F.linear(tokens, key_weight).unflatten(-1, (heads, -1))
            scores = torch.einsum("hd,nlhd->nhl", query, keys) / math.sqrt(dim // heads)
            shares = at_least_float32(scores).softmax(-1)[..., 1:]
        frames = len(tokens)
        rows = [f"head {number}" for number in range(1, heads + 1)]
        return LayerWeights("attention of CLS", rows, shares.sum(0) / max(frames, 1), frames)

    def _tokens(self, layers: Sequence[Tensor]) -> Tensor:
        """CLS before L states (B, T, D) or (N, D), each frame a sequence of its own: (frames, L + 1, D)."""
        cls = self.cls.expand_as(layers[0])
        return torch.stack([cls, *(state.to(cls.dtype) for state in layers)], dim=-2).flatten(0, -3)
