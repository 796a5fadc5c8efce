"""Keeps padding out of the modules of transformers' speech encoders that mix frames and take no mask.

With an attention mask, transformers keeps padding out of attention and, in most models, out of the convolution that
encodes positions. Two things are left: the group norm over time of Base models' first layer takes its statistics from
the padding too, and data2vec's stacked position convolutions let it in from their second layer on. With both repaired,
an utterance in a padded batch gets the hidden states that it gets alone.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from s3prl_interfaces.transformers_upstream.inputs import own_mask


class Lengths:
    """The samples of each utterance of the batch that goes through the model; its modules read them here."""

    samples: Sequence[int] = ()


def keep_padding_out(model: nn.Module) -> Lengths:
    """Repair a model in place; its parameters keep their names.

    Returns:
        Where each batch's lengths must be written before it goes through the model.
    """
    lengths = Lengths()
    convs = [layer.conv for layer in getattr(getattr(model, "feature_extractor", None), "conv_layers", ())]
    if convs:
        first: Any = model.get_submodule("feature_extractor.conv_layers.0")
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = OwnFramesGroupNorm(first.layer_norm, first.conv, lengths)
    positions: Any = getattr(getattr(model, "encoder", None), "pos_conv_embed", None)
    for layer in getattr(positions, "layers", ()):
        layer.register_forward_pre_hook(_SilentPadding(convs, lengths))
    return lengths


class OwnFramesGroupNorm(nn.GroupNorm):
    """Group norm over the time of a (B, C, T) tensor, each utterance's statistics from its own frames alone."""

    def __init__(self, norm: nn.GroupNorm, conv: nn.Conv1d, lengths: Lengths) -> None:
        super().__init__(norm.num_groups, norm.num_channels, norm.eps, norm.affine)
        self.weight, self.bias = norm.weight, norm.bias
        self.sizes = conv.kernel_size[0], conv.stride[0]
        self.lengths = lengths

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise; frames of padding become 0."""
        frames = _frames(self.lengths.samples, [self.sizes])
        if len(set(frames)) == 1:
            return super().forward(hidden)
        normed: Tensor | None = None
        for row, own in enumerate(frames):
            of_row = super().forward(hidden[row : row + 1, :, :own])[0]
            if normed is None:  # in autocast its dtype is another than the input's
                normed = of_row.new_zeros(hidden.shape)
            normed[row, :, :own] = of_row
        return hidden if normed is None else normed


class _SilentPadding:
    """Zeroes the frames of padding in a (B, C, T) tensor before it goes into a module, as transformers does once."""

    def __init__(self, convs: Sequence[nn.Conv1d], lengths: Lengths) -> None:
        self.sizes = [(conv.kernel_size[0], conv.stride[0]) for conv in convs]
        self.lengths = lengths

    def __call__(self, module: nn.Module, args: tuple[Tensor]) -> Tensor:
        mask = own_mask(_frames(self.lengths.samples, self.sizes), args[0].device)
        return args[0] * mask[:, None]


def _frames(samples: Sequence[int], sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Frames after convolutions of (kernel, stride) without padding."""
    frames = list(samples)
    for kernel, stride in sizes:
        frames = [(count - kernel) // stride + 1 for count in frames]
    return frames
