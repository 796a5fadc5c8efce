"""Hierarchical Convolution (HConv), the paper's main proposal.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1.

    per frame, the L layers are a sequence of length L with D channels
    floor(log_stride L) times: sequence = relu(conv1d(sequence))      kernel 5, stride 3, padding 2
    features = what is left of the sequence, flattened channel by channel

The length becomes floor((length + 2 * padding - kernel) / stride) + 1 each time. All convolutions but the
last keep D channels; the last has floor(D / L_final), L_final being the length that it leaves, so that the
width of the result, floor(D / L_final) * L_final, is D or slightly less.

Differences from the released reference code: ``output_dim`` follows from the sizes instead of being typed;
widths that do not divide (25 layers of 1024 give 1023) work; the number of convolutions is counted in
integers, so that it is right at every power of the stride; fewer layers than the stride are refused, for then
there is nothing to convolve and neither paper nor reference says what to do. The weights are those of
``nn.Conv1d`` modules in the reference's order, but are applied as one matrix product a tap and position,
which needs no copy of the states with layers innermost.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from s3prl_interfaces.interfaces.base import Interface, check_int
from s3prl_interfaces.interfaces.registry import register_interface
from s3prl_interfaces.interfaces.sums import sums_of_products, to_rows


@register_interface("hconv", paper="arXiv 2406.12209, Table 1: Hierarchical Conv.", min_layers=3)
class HConv(Interface):
    """Convolutions over the layer axis, the same for every frame; the paper's main proposal.

    Args:
        num_layers: L, at least ``stride``.
        feature_dim: D.
        kernel_size: Layers under the kernel.
        stride: Layers from one position of the kernel to the next, at least 2.
        padding: Zeros at either end of the layer axis, fewer than ``kernel_size``; half the kernel, rounded
            down, if not given.
        normalize: Layer-normalise each hidden state first.

    Attributes:
        convs: floor(log_stride L) ``nn.Conv1d`` modules, first to last.
        layer_axis: Length of the layer axis at first and after each convolution: 13, 5, 2 for 13 layers.

    Raises:
        ValueError: There are fewer layers than ``stride``; a convolution would leave nothing of the layer
            axis; or D is less than what is left of it.
    """

    def __init__(
        self,
        num_layers: int,
        feature_dim: int,
        *,
        kernel_size: int = 5,
        stride: int = 3,
        padding: int | None = None,
        normalize: bool = False,
    ) -> None:
        num_layers = check_int("num_layers", num_layers)
        feature_dim = check_int("feature_dim", feature_dim)
        kernel_size = check_int("kernel_size", kernel_size)
        stride = check_int("stride", stride, minimum=2)
        padding = kernel_size // 2 if padding is None else check_int("padding", padding, minimum=0)
        if padding >= kernel_size:
            raise ValueError(f"`padding` must be less than `kernel_size`, {kernel_size}, but is {padding}.")
        if num_layers < stride:
            raise ValueError(f"`num_layers` must be at least `stride`, {stride}, for hconv, but is {num_layers}.")
        axis = list(_layer_axis(num_layers, kernel_size, stride, padding))
        if axis[-1] < 1:
            raise ValueError(
                f"`padding` must be larger: kernel_size={kernel_size}, stride={stride} and padding={padding} "
                f"leave nothing of a layer axis of {num_layers}."
            )
        if feature_dim < axis[-1]:
            raise ValueError(f"`feature_dim` must be at least {axis[-1]} for hconv, but is {feature_dim}.")
        last_channels = feature_dim // axis[-1]
        super().__init__(num_layers, feature_dim, output_dim=last_channels * axis[-1], normalize=normalize)
        self.layer_axis = tuple(axis)
        channels = [feature_dim] * (len(axis) - 1) + [last_channels]
        self.convs = nn.ModuleList(
            nn.Conv1d(inside, outside, kernel_size, stride=stride, padding=padding)
            for inside, outside in itertools.pairwise(channels)
        )

    def reset_parameters(self) -> None:
        """Draw all convolutions anew."""
        for conv in cast("Iterable[nn.Conv1d]", self.convs):
            conv.reset_parameters()

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Turn L states (B, T, D) into (B, T, O)."""
        axis, back = to_rows(layers)
        for conv in cast("Iterable[nn.Conv1d]", self.convs):
            axis = [F.relu(position, inplace=True).to(layers[0].dtype) for position in _convolve(conv, axis)]
        return back(torch.stack(axis, dim=-1).flatten(1))  # (N, channels, L_final): channel by channel

    def extra_repr(self) -> str:
        """Show how the layer axis shrinks beside the sizes."""
        return f"{super().extra_repr()}, layer_axis={self.layer_axis}"


def floor_log(number: int, base: int) -> int:
    """Return the largest n with ``base ** n <= number``; logarithms of floats are off at powers of 3."""
    exponent = 0
    while number >= base:
        number //= base
        exponent += 1
    return exponent


def _layer_axis(num_layers: int, kernel_size: int, stride: int, padding: int) -> Iterator[int]:
    """Yield the length of the layer axis at first and after each convolution, until nothing is left."""
    length = num_layers
    yield length
    for _ in range(floor_log(num_layers, stride)):
        length = (length + 2 * padding - kernel_size) // stride + 1
        yield length
        if length < 1:
            return


def _convolve(conv: nn.Conv1d, layers: Sequence[Tensor]) -> Sequence[Tensor]:
    """Convolve along the axis that a list of (N, channels) stands for; give the result's positions."""
    kernel_size, stride, padding = conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
    taps = conv.weight.permute(2, 0, 1).contiguous()  # kernel_size matrices (out, in)
    starts = range(-padding, len(layers) + padding - kernel_size + 1, stride)
    terms = [[(start + tap, tap) for tap in range(kernel_size) if 0 <= start + tap < len(layers)] for start in starts]
    return sums_of_products(layers, taps, cast("Tensor", conv.bias), terms)
