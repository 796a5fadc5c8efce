"""Sums over layers, without a stack of all layers, forward or backward.

PyTorch's own gradient of such a sum keeps or makes a tensor for every term of it. Here a sum is one operation: it adds
each term into the result, and gives gradients only where they are wanted: the hidden states of a frozen upstream cost
nothing on the way back.

The operations work on frames: rows (N, D), one for each frame of a batch, N = B * T. Sums are kept in at least float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from s3prl_interfaces.interfaces.base import at_least_float32

Terms = Sequence[Sequence[tuple[int, int]]]
"""For each sum, which layer meets which matrix."""


def to_rows(layers: Sequence[Tensor]) -> tuple[list[Tensor], Callable[[Tensor], Tensor]]:
    """Give the frames of layers as rows, in the order in which they lie in memory: S3PRL's HuBERT has time first.

    Args:
        layers: L tensors (B, T, D).

    Returns:
        L tensors (N, D), copies only of layers that lie otherwise; and a function from (N, O) back to (B, T, O).
    """
    batch, frames, _ = layers[0].shape
    if all(layer.transpose(0, 1).is_contiguous() for layer in layers):
        rows = [layer.transpose(0, 1).flatten(0, 1) for layer in layers]
        return rows, lambda features: features.unflatten(0, (frames, batch)).transpose(0, 1)
    return [layer.flatten(0, 1) for layer in layers], lambda features: features.unflatten(0, (batch, frames))


def weighted_sum(layers: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Add up layers.

    Args:
        layers: Frames, L tensors (N, D).
        shares: How much of each, shape (L,), at least float32.

    Returns:
        Shape (N, D), at least float32.
    """
    return _WeightedSum.apply(shares, *layers)


def sums_of_products(layers: Sequence[Tensor], matrices: Tensor, bias: Tensor, terms: Terms) -> tuple[Tensor, ...]:
    """Add up products of layers and matrices.

    The products are of the layers' dtype, or autocast's.

    Args:
        layers: Frames, tensors (N, D).
        matrices: Shape (M, O, D), with any strides.
        bias: Shape (O,), added to every sum.
        terms: For each sum, its terms.

    Returns:
        ``bias + sum(layers[i] @ matrices[j].T for i, j in pairs)`` for ``pairs`` in ``terms``: shape (N, O), at least
        float32.
    """
    dtype = product_dtype(layers)
    return _SumsOfProducts.apply(terms, dtype, matrices, bias, *layers)


def mixture(layers: Sequence[Tensor], shares: Tensor) -> Tensor:
    """Add up layers frame by frame, for each head with other shares.

    Args:
        layers: Frames, L tensors (N, D).
        shares: How much of each layer a head takes in a frame, shape (N, H, L).

    Returns:
        Shape (N, H, D), in the dtype of ``shares``.
    """
    return _Mixture.apply(shares, *layers)


def product_dtype(layers: Sequence[Tensor]) -> torch.dtype:
    """The dtype in which matrix products of layers are computed: autocast's where it is on, or the widest of theirs."""
    dtype, device = layers[0].dtype, layers[0].device.type
    for layer in layers:
        dtype = torch.promote_types(dtype, layer.dtype)
    if torch.is_autocast_enabled(device) and dtype != torch.float64:  # which autocast leaves alone
        return torch.get_autocast_dtype(device)
    return dtype


# PyTorch 2.11's torch.compile loses the gradient of a result that was changed in place in `forward`
# (https://github.com/pytorch/pytorch/issues/180642). `detach` gives it the same memory as another tensor.


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(shares, *layers)
        total = shares[0] * at_least_float32(layers[0])
        for layer, share in zip(layers[1:], shares[1:], strict=True):
            total.addcmul_(layer, share)
        return total.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, *layers = ctx.saved_tensors
        of_shares = None
        if ctx.needs_input_grad[0]:
            flat = gradient.reshape(-1)
            of_shares = torch.stack([torch.dot(flat, layer.reshape(-1).to(flat.dtype)) for layer in layers])
        wanted = ctx.needs_input_grad[1:]
        of_layers = [
            (share * gradient).to(layer.dtype) if needed else None
            for layer, share, needed in zip(layers, shares, wanted, strict=True)
        ]
        return of_shares, *of_layers


class _SumsOfProducts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, terms: Terms, dtype: torch.dtype, matrices: Tensor, bias: Tensor, *layers: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.terms, ctx.dtype = terms, dtype
        ctx.save_for_backward(matrices, bias, *layers)
        matrices = matrices.to(dtype)
        wide = torch.promote_types(dtype, torch.float32)
        totals = [bias.to(wide).repeat(len(layers[0]), 1) for _ in terms]
        for total, pairs in zip(totals, terms, strict=True):
            for layer, matrix in pairs:
                _add_product(total, layers[layer].to(dtype), matrices[matrix].T)
        return tuple(total.detach() for total in totals)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        matrices, bias, *layers = ctx.saved_tensors
        _, _, of_matrices_wanted, of_bias_wanted, *wanted = ctx.needs_input_grad
        of_matrices = torch.zeros_like(matrices, dtype=gradients[0].dtype) if of_matrices_wanted else None
        of_bias = torch.stack([one.sum(0) for one in gradients]).sum(0).to(bias.dtype) if of_bias_wanted else None
        of_layers: list[Tensor | None] = [None] * len(layers)
        narrow = matrices.to(ctx.dtype)
        for gradient, pairs in zip((gradient.to(ctx.dtype) for gradient in gradients), ctx.terms, strict=True):
            for layer, matrix in pairs:
                if of_matrices is not None:
                    _add_product(of_matrices[matrix], gradient.T, layers[layer].to(ctx.dtype))
                if wanted[layer]:
                    total = of_layers[layer]
                    if total is None:
                        total = of_layers[layer] = torch.zeros_like(layers[layer], dtype=gradients[0].dtype)
                    _add_product(total, gradient, narrow[matrix])
        if of_matrices is not None:
            of_matrices = of_matrices.to(matrices.dtype)
        return (
            None,
            None,
            of_matrices,
            of_bias,
            *(
                total if total is None else total.to(layer.dtype)
                for total, layer in zip(of_layers, layers, strict=True)
            ),
        )


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shares: Tensor, *layers: Tensor) -> Tensor:
        ctx.save_for_backward(shares, *layers)
        result = shares.new_empty(*shares.shape[:2], layers[0].shape[1])
        for part in _parts(len(shares)):
            torch.bmm(shares[part], _stacked(layers, part, shares.dtype), out=result[part])
        return result.detach()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, *layers = ctx.saved_tensors
        of_shares_wanted, *wanted = ctx.needs_input_grad
        of_shares = torch.empty_like(shares) if of_shares_wanted else None
        of_layers = [torch.empty_like(layer) if needed else None for layer, needed in zip(layers, wanted, strict=True)]
        for part in _parts(len(shares)):
            if of_shares is not None:
                stack = _stacked(layers, part, shares.dtype)
                torch.bmm(gradient[part], stack.transpose(1, 2), out=of_shares[part])
            if any(wanted):
                of_stack = torch.bmm(shares[part].transpose(1, 2), gradient[part])
                for total, of_layer in zip(of_layers, of_stack.unbind(1), strict=True):
                    if total is not None:
                        total[part] = of_layer
        return of_shares, *of_layers


_PART = 64
"""Frames whose layers are put side by side at a time: few enough that they stay in a CPU's cache."""


def _parts(frames: int) -> list[slice]:
    return [slice(start, start + _PART) for start in range(0, frames, _PART)]


def _stacked(layers: Sequence[Tensor], part: slice, dtype: torch.dtype) -> Tensor:
    return torch.stack([layer[part].to(dtype) for layer in layers], dim=1)


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    """Add a matrix product, of half precision perhaps, to a sum."""
    if total.dtype == one.dtype:
        total.addmm_(one, other)
    else:
        total += one @ other
