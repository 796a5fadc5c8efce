"""The contract that every interface keeps.

Shapes, here and in every file beside this one:

    L  layers (hidden states), ``num_layers``; the output of the feature encoder counts, so HuBERT Base has 13
    B  utterances in the batch
    T  frames of the longest utterance
    D  channels of a hidden state, ``feature_dim``
    O  channels of the result, ``output_dim``

    (L, B, T, D) -> (B, T, O)

Dtypes: the result has the dtype of the hidden states (of the widest of them, should they differ), also under
autocast. Parameters may have another dtype: they are cast to that of the states for matrix products, and sums
over layers are kept in at least float32, so that 25 layers in bfloat16 lose no more than one would.
"""

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class NotFittedError(RuntimeError):
    """An interface that has to be fitted was used before it was, or could not be fitted."""


@dataclass(frozen=True)
class LayerWeights:
    """How much of each layer an interface takes, where its own weights say so."""

    what: str
    """What the weights are, such as ``softmax weights``."""

    rows: list[str]
    """A name for each row: a group of layers, an attention head, ..."""

    values: Tensor
    """Shape (rows, L), at least float32, without gradient."""

    frames: int | None = None
    """Of how many frames this is the mean; None: the weights are the same for every input."""

    def merged_with(self, other: "LayerWeights") -> "LayerWeights":
        """The mean over the frames of both; of weights that are the same for every input, the other's."""
        if self.frames is None or other.frames is None:
            return other
        frames = self.frames + other.frames
        share = other.frames / max(frames, 1)
        return replace(self, values=self.values + share * (other.values - self.values), frames=frames)


class Interface(nn.Module, ABC):
    """Base class of all interfaces.

    A subclass hands ``num_layers``, ``feature_dim`` and ``normalize`` on, sets ``output_dim`` if it is not
    ``feature_dim``, and defines :meth:`combine`. Its options are keyword arguments with defaults.

    Args:
        num_layers: How many hidden states there will be, L.
        feature_dim: Channels of each, D.
        output_dim: Channels of the result, O; D if not given.
        normalize: Apply layer normalisation over the channels of each hidden state, without parameters,
            before the states are combined. As in S3PRL, it is off by default.

    Attributes:
        num_layers: L.
        feature_dim: D.
        output_dim: O.
        normalize: Whether hidden states are normalised first.

    Raises:
        ValueError: A size is not an integer of at least 1, or ``normalize`` is not a truth value.
    """

    def __init__(
        self,
        num_layers: int,
        feature_dim: int,
        *,
        output_dim: int | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.num_layers = check_int("num_layers", num_layers)
        self.feature_dim = check_int("feature_dim", feature_dim)
        self.output_dim = self.feature_dim if output_dim is None else check_int("output_dim", output_dim)
        if not isinstance(normalize, bool):
            raise ValueError(f"`normalize` must be true or false, but is {normalize!r}.")
        self.normalize = normalize

    @abstractmethod
    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Combine hidden states that were checked and, if so wished, normalised.

        Args:
            layers: L tensors of shape (B, T, D) on one device. They are the caller's: never change them.
            lengths: Valid frames of each utterance, shape (B,), or None if all frames are valid. Whoever
                mixes frames must see to it that frames beyond the length change nothing.

        Returns:
            Features of shape (B, T, O).
        """

    def forward(
        self,
        hidden_states: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> Tensor:
        """Turn L hidden states into features.

        Args:
            hidden_states: A list or tuple of L tensors of shape (B, T, D), which is not copied into a
                stack, or one tensor of shape (L, B, T, D), contiguous or not.
            lengths: Valid frames of each utterance, shape (B,). Needed only by an interface that looks across
                time.

        Returns:
            Features of shape (B, T, O), in the dtype of the hidden states.

        Raises:
            ValueError: Number, type or shape of the hidden states or of the lengths is not as above.
        """
        layers, lengths = self.prepare(hidden_states, lengths)
        dtype = functools.reduce(torch.promote_types, (layer.dtype for layer in layers))
        return self.combine(layers, lengths).to(dtype)

    def layer_weights(
        self,
        hidden_states: Sequence[Tensor] | Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> LayerWeights | None:
        """How much of each layer the interface takes, if it has weights that say so; by default None.

        They are those of evaluation, without dropout, whatever the mode. With ``normalize`` they apply to the
        normalised states.

        Args:
            hidden_states: As for :meth:`forward`; not needed where the weights are the same for every input.
            lengths: Valid frames of each utterance, shape (B,); frames beyond do not count.

        Raises:
            ValueError: The weights depend on the hidden states, and there are none, or as for :meth:`forward`.
        """
        return None

    def prepare(
        self,
        hidden_states: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Sequence[Tensor], Tensor | None]:
        """Check what :meth:`forward` was given, and normalise it if so wished.

        Returns:
            L tensors of shape (B, T, D), and the lengths as a tensor on the same device.

        Raises:
            ValueError: As for :meth:`forward`.
        """
        layers = self._layers_of(hidden_states)
        batch_size = layers[0].shape[0]
        if lengths is not None:
            lengths = _check_lengths(lengths, batch_size, layers[0].device)
        if self.normalize:
            layers = [F.layer_norm(layer, (self.feature_dim,)) for layer in layers]
        return layers, lengths

    def _layers_of(self, hidden_states: Sequence[Tensor] | Tensor) -> Sequence[Tensor]:
        if isinstance(hidden_states, Tensor):
            if hidden_states.ndim != 4:
                raise ValueError(
                    "Stacked `hidden_states` must have the shape (layers, batch, time, channels), but have "
                    f"{tuple(hidden_states.shape)}."
                )
            layers: Sequence[Tensor] = hidden_states.unbind(0)  # views, whatever the strides
        elif isinstance(hidden_states, Sequence) and not isinstance(hidden_states, str):
            layers = hidden_states
        else:
            raise ValueError(
                "`hidden_states` must be a list or tuple of tensors or one stacked tensor, but is a "
                f"{type(hidden_states).__name__}."
            )
        if len(layers) != self.num_layers:
            raise ValueError(f"`hidden_states` must be {self.num_layers} layers, but are {len(layers)}.")
        for index, layer in enumerate(layers):
            self._check_layer(index, layer, layers[0])
        return layers

    def _check_layer(self, index: int, layer: Tensor, first: Tensor) -> None:
        if not isinstance(layer, Tensor):
            raise ValueError(f"Hidden state {index} must be a tensor, but is a {type(layer).__name__}.")
        if not layer.is_floating_point():
            raise ValueError(f"Hidden state {index} must be floating point, but is {layer.dtype}.")
        if layer.ndim != 3 or layer.shape[-1] != self.feature_dim:
            raise ValueError(
                f"Hidden state {index} must have the shape (batch, time, {self.feature_dim}), "
                f"but has {tuple(layer.shape)}."
            )
        if layer.shape != first.shape:
            raise ValueError(
                f"All hidden states must have one shape, but state {index} has {tuple(layer.shape)} "
                f"and state 0 has {tuple(first.shape)}."
            )

    def extra_repr(self) -> str:
        """Show the sizes when the module is printed."""
        return (
            f"num_layers={self.num_layers}, feature_dim={self.feature_dim}, output_dim={self.output_dim}, "
            f"normalize={self.normalize}"
        )


def check_int(name: str, value: object, minimum: int = 1) -> int:
    """Return ``value`` as an int.

    Raises:
        ValueError: It is not an integer (True and False are none), or it is below ``minimum``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < minimum:
        raise ValueError(f"`{name}` must be an integer of at least {minimum}, but is {value!r}.")
    return number


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a half-precision tensor in float32, any other as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def valid_frames(layer: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the frames (N, D) of a hidden state (B, T, D) that are not padding.

    Raises:
        ValueError: A length is negative or more than T.
    """
    if lengths is None:
        return layer.flatten(0, 1)
    frames = layer.shape[1]
    if ((lengths < 0) | (lengths > frames)).any():
        raise ValueError(f"`lengths` must be from 0 to the {frames} frames of a state, but are {lengths.tolist()}.")
    return layer[torch.arange(frames, device=layer.device) < lengths[:, None]]


def _check_lengths(lengths: Tensor | Sequence[int], batch_size: int, device: torch.device) -> Tensor:
    try:
        tensor = torch.as_tensor(lengths, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"`lengths` must be {batch_size} integers, but is {lengths!r}.") from error
    whole = not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    # An empty list becomes a float tensor, which is right for a batch of none.
    if tensor.shape != (batch_size,) or not (whole or batch_size == 0):
        raise ValueError(
            f"`lengths` must be integers of the shape ({batch_size},), but is {tensor.dtype} of the shape "
            f"{tuple(tensor.shape)}."
        )
    return tensor
