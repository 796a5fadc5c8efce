"""A device beside the CPU, for machines without a GPU: what mixes the two devices' tensors fails, as with CUDA.

Its tensors lie in the CPU's memory and are computed there. So it shows what was left on the wrong device, and nothing
of CUDA's own kernels, rounding, memory, streams and random numbers. Autocast casts as on CUDA. PyTorch can have one
such device a process, for good: :func:`run_with_it` takes a process of its own.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
DEVICE = "second"
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""What takes indices of the CPU for a tensor that is elsewhere."""
COPIES = (aten._to_copy.default, aten.copy_.default)
LIBRARIES = []
"""What is registered with PyTorch, which forgets it with the object."""


def run_with_it(work: Callable[..., Any], *args: Any) -> Any:
    """What ``work(*args)``, a function of a module, gives in a process that has the device; raises what it raises."""
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as process:
        return process.submit(_with_device, work, args).result()


def _with_device(work: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)  # before threads do, each for itself: they would make the forked pool anew together
    _setup_privateuseone_for_python_backend(DEVICE, backend_module=_Module())
    _register_autocast()
    torch.ctc_loss = _ctc_loss
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) is a copy, which the mode below sees
    with torch.autograd.set_multithreading_enabled(False), _Mode():
        return work(*args)


class SecondTensor(torch.Tensor):
    """A tensor of the device."""

    here: torch.Tensor
    """Its values, on the CPU."""

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> "SecondTensor":
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            device=torch.device(DEVICE, 0),
        )
        self.here = here
        return self

    def __repr__(self, **_: Any) -> str:
        return f"SecondTensor({self.here!r})"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.here.__reduce_ex__(protocol)

    def tolist(self) -> Any:
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Looks at every operation, for those that make a tensor on the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Module(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.float16, torch.bfloat16]


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_leaves((args, kwargs))
    there = any(isinstance(leaf, SecondTensor) for leaf in leaves)
    asked = kwargs.get("device")
    goes_there = there if asked is None else torch.device(asked).type == DEVICE
    if not there and not goes_there:
        return func(*args, **kwargs)
    if there and func not in COPIES:
        _refuse_mixtures(func, args, kwargs)
    if goes_there and any(isinstance(leaf, torch.Generator) for leaf in leaves):
        raise RuntimeError(f"{func}: a generator of the CPU for a tensor on {DEVICE}")
    computed = FUSED.get(func, func)(*tree_map(_here, args), **tree_map(_here, kwargs))
    if func is aten._pack_padded_sequence.default:
        return SecondTensor(computed[0]), computed[1]  # how many go on in each frame: always on the CPU
    if func is aten.copy_.default and not isinstance(args[0], SecondTensor):
        return args[0]
    if not goes_there:
        return computed
    computed = tree_map(lambda leaf: SecondTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, computed)
    # In place: the tensor itself, whose shape may have changed.
    return return_and_correct_aliasing(func, args, kwargs, computed) if func._schema.is_mutable else computed


def _refuse_mixtures(func: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if func in INDEXED and isinstance(args[0], SecondTensor):
        args = (args[0], *args[2:])
    elif func is aten._pack_padded_sequence.default:
        args = args[:1]
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    strangers = [leaf for leaf in tensors if not isinstance(leaf, SecondTensor) and leaf.dim() > 0]
    if strangers:
        raise RuntimeError(f"{func}: {[tuple(leaf.shape) for leaf in strangers]} on the CPU, others on {DEVICE}")


def _here(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) and leaf.type == DEVICE:
        return torch.device("cpu")
    return leaf.here if isinstance(leaf, SecondTensor) else leaf


def _ctc_loss(log_probs: Any, targets: Any, lengths: Any, target_lengths: Any, *others: Any) -> Any:
    """With lengths as plain numbers: of tensors, PyTorch moves a subclass's no more to the losses' device."""
    return _PLAIN_CTC_LOSS(log_probs, targets, lengths.tolist(), target_lengths.tolist(), *others)


_PLAIN_CTC_LOSS = torch.ctc_loss


def _lstm_cell(from_input: Any, from_state: Any, cell: Any, input_bias: Any = None, state_bias: Any = None) -> Any:
    """One step of an LSTM, as devices beside the CPU are asked for it: state, cell, and the four gates."""
    gates = from_input + from_state
    if input_bias is not None:
        gates = gates + input_bias + state_bias
    write, keep, new, show = gates.chunk(4, 1)
    write, keep, new, show = write.sigmoid(), keep.sigmoid(), new.tanh(), show.sigmoid()
    after = keep * cell + write * new
    return show * after.tanh(), after, torch.cat([write, keep, new, show], 1)


def _lstm_cell_backward(state: Any, after: Any, cell: Any, cell_after: Any, gates: Any, has_bias: bool) -> Any:
    """Gradients of the gates before their nonlinearities, of the cell, and of the biases."""
    write, keep, new, show = gates.chunk(4, 1)
    state, after = (torch.zeros_like(cell) if gradient is None else gradient for gradient in (state, after))
    shown = cell_after.tanh()
    after = after + state * show * (1 - shown**2)
    parts = [
        after * new * write * (1 - write),
        after * cell * keep * (1 - keep),
        after * write * (1 - new**2),
        state * shown * show * (1 - show),
    ]
    gradient = torch.cat(parts, 1)
    return gradient, after * keep, gradient.sum(0) if has_bias else None


def _register_autocast() -> None:
    """PyTorch's lists of casts for CUDA (ATen/autocast_mode.h), of the operations that occur here."""
    others, some = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    LIBRARIES.extend([others, some])
    others.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    for name in (*HALVED, *WIDENED):
        packet = getattr(aten, name.split(".")[0])
        overload = getattr(packet, name.split(".")[1] if "." in name else "default")
        some.impl(name, partial(_cast, overload, name in WIDENED), AUTOCAST)


def _cast(func: Any, widen: bool, *args: Any, **kwargs: Any) -> Any:
    to = torch.float32 if widen else torch.get_autocast_dtype(DEVICE)

    def cast(leaf: Any) -> Any:
        floats = isinstance(leaf, SecondTensor) and leaf.is_floating_point() and leaf.dtype != torch.float64
        return leaf.to(to) if floats else leaf

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, AUTOCAST))):
        return func(*tree_map(cast, args), **tree_map(cast, kwargs))


AUTOCAST = "AutocastPrivateUse1"
HALVED = (
    *("conv1d", "conv2d", "_convolution", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "mv", "addmv"),
    *("einsum", "scaled_dot_product_attention", "_thnn_fused_lstm_cell"),
)
WIDENED = (
    *("exp", "log", "log1p", "pow.Tensor_Scalar", "reciprocal", "rsqrt", "layer_norm", "group_norm", "norm.Scalar"),
    *("softmax.int", "log_softmax.int", "logsumexp", "sum", "sum.dim_IntList", "cumsum", "prod"),
    *("nll_loss", "mse_loss", "l1_loss", "kl_div", "cosine_similarity"),
)

FUSED = {
    aten._thnn_fused_lstm_cell.default: _lstm_cell,
    aten._thnn_fused_lstm_cell_backward_impl.default: _lstm_cell_backward,
}
"""Operations that the CPU has no kernel for."""
