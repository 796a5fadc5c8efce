"""What an interface costs: multiply-accumulate operations (MACs).

One MAC is one multiplication of elements of two tensors, together with the addition of the product to a sum where
there is one. Counted are the multiplications of

    matrix products, convolutions and attention     as PyTorch's ``FlopCounterMode`` has them, two FLOPs to a MAC
    products with a vector, elementwise products    which it leaves out; a weighted sum costs L * D a frame

and not additions alone (a plain mean over layers costs nothing), multiplications by a Python number, activations,
softmax, normalisation and dropout. It is what a forward pass really does: a convolution over the layers that leaves
out its zero padding saves that.
"""

from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from s3prl_interfaces.interfaces.base import Interface, check_int


def count_macs(interface: Interface, frames: int) -> int:
    """Count the multiply-accumulate operations of one forward pass on one utterance.

    The pass is one of evaluation, on zeros; nothing of the interface changes, nor does any random state.

    Args:
        interface: Any interface, in whatever mode, dtype and place.
        frames: T, at least 1. With the frames of a second of audio, the result is MACs per second.

    Returns:
        The number of MACs, as defined above.

    Raises:
        ValueError: ``frames`` is not an integer of at least 1.
        NotFittedError: The interface has to be fitted first.
    """
    frames = check_int("frames", frames)
    weights = [tensor for tensor in (*interface.parameters(), *interface.buffers()) if tensor.is_floating_point()]
    like = weights[0] if weights else torch.zeros(())
    states = [like.new_zeros(1, frames, interface.feature_dim) for _ in range(interface.num_layers)]
    modes = [(module, module.training) for module in interface.modules()]
    try:
        interface.eval()
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(torch.random.fork_rng([like.device] if like.is_cuda else []))
            _forbid_fused(stack)
            lengths = torch.tensor([frames], device=like.device)
            return count_call(lambda: interface(states, lengths))
    finally:
        for module, training in modes:
            module.training = training


def count_call(call: Callable[[], Any]) -> int:
    """Count the multiply-accumulate operations, as defined above, of a call: with a backward pass, perhaps."""
    counter = FlopCounterMode(display=False, custom_mapping=_LEFT_OUT)
    with counter:
        call()
    return counter.get_total_flops() // 2


def _forbid_fused(stack: ExitStack) -> None:
    """Have attention and recurrent layers done in parts: of fused operations the counter knows some and not others."""
    stack.enter_context(sdpa_kernel(SDPBackend.MATH))
    stack.callback(torch.backends.mha.set_fastpath_enabled, torch.backends.mha.get_fastpath_enabled())
    torch.backends.mha.set_fastpath_enabled(False)
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    for library in libraries:  # not by their `flags()`, which reset other settings too
        stack.callback(setattr, library, "enabled", library.enabled)
        library.enabled = False


def _product(one: Any, other: Any, *, out_shape: torch.Size, **_: Any) -> int:
    """FLOPs of an elementwise product. The counter hands over a tensor as its shape, a number as it is."""
    return 2 * prod(out_shape) if isinstance(one, torch.Size) and isinstance(other, torch.Size) else 0


def _added_product(_: Any, one: Any, other: Any, *, out_shape: torch.Size, **__: Any) -> int:
    return _product(one, other, out_shape=out_shape)


def _added_matrix_product(_: Any, one: torch.Size, other: torch.Size, **__: Any) -> int:
    return 2 * prod(one) * other[-1]


def _vector_product(matrix: torch.Size, vector: torch.Size, **_: Any) -> int:
    return 2 * prod(matrix)


def _added_vector_product(_: torch.Size, matrix: torch.Size, vector: torch.Size, **__: Any) -> int:
    return 2 * prod(matrix)


_LEFT_OUT = {
    torch.ops.aten.mul: _product,
    torch.ops.aten.mul_: _product,
    torch.ops.aten.addcmul: _added_product,
    torch.ops.aten.addcmul_: _added_product,
    torch.ops.aten.addmm_: _added_matrix_product,
    torch.ops.aten.dot: _vector_product,
    torch.ops.aten.mv: _vector_product,
    torch.ops.aten.addmv: _added_vector_product,
}
