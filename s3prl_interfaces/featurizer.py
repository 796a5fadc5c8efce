"""Interfaces in S3PRL's place for them: the featurizer of S3PRL's ``Runner``, and the one of ``s3prl.nn``.

The two S3PRL contracts disagree on how many frames an utterance has, and each adapter keeps its own rule:
the ``Runner``'s rounds ``samples / rate`` and never extends; ``s3prl.nn`` takes the lengths that it is given.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_interfaces.errors import ConfigError, UpstreamError
from s3prl_interfaces.interfaces import Interface, build_interface
from s3prl_interfaces.s3prl_compat import prepare

prepare()

from s3prl.upstream.interfaces import Featurizer  # noqa: E402 (after prepare)

logger = logging.getLogger(__name__)

SAMPLE_RATE = 16000
DEFAULT_INTERFACE = "weighted_sum"
# S3PRL's TOLERABLE_SEQLEN_DIFF (s3prl/upstream/interfaces.py): frames by which the longest utterance may be off.
TOLERABLE_FRAMES = 5


class InterfaceFeaturizer(Featurizer):
    """S3PRL's ``Featurizer`` (``s3prl/upstream/interfaces.py``) with any interface in place of the weighted sum.

    The upstream runs once on one second of noise, to read the number of layers, the width and the frame rate. As in
    S3PRL, an upstream that gives one hidden state (or ``layer_selection``, which takes one) needs no weighted sum: the
    default interface is then left out and there are no parameters.

    Args:
        upstream: an S3PRL upstream; it is put in eval mode.
        feature_selection: key of the upstream's output.
        upstream_device: where the upstream's weights are.
        layer_selection: use this layer alone (0-based, negatives allowed).
        normalize: layer-normalise each hidden state without parameters, as S3PRL's ``--upstream_feature_normalize``.
        interface: a registered name or ``package.module:Class``.
        interface_options: the interface's own arguments.

    Attributes:
        output_dim: width of the features.
        downsample_rate: samples per frame.
        interface: the interface module, or None (see above).

    Raises:
        UpstreamError: the upstream's output holds neither ``feature_selection`` nor hidden states.
        ConfigError: the interface or its options do not fit the upstream.
    """

    def __init__(
        self,
        upstream: nn.Module,
        feature_selection: str = "hidden_states",
        upstream_device: str = "cuda",
        layer_selection: int | None = None,
        normalize: bool = False,
        interface: str = DEFAULT_INTERFACE,
        interface_options: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> None:
        # Not super().__init__(): it would build a weighted sum, and say so.
        nn.Module.__init__(self)
        self.name = "Featurizer"
        self.layer_selection = layer_selection
        self.normalize = normalize
        self.interface: Interface | None = None

        upstream.eval()
        with torch.no_grad():
            output = upstream([torch.randn(SAMPLE_RATE).to(upstream_device)])
        self.feature_selection = _present_key(output, feature_selection)
        try:
            feature = self._select_feature(output)
        except IndexError as error:
            last = len(output[self.feature_selection]) - 1
            raise ConfigError(f"`-l {layer_selection}`: the upstream has layers 0 to {last}.") from error
        layers = list(feature) if isinstance(feature, (list, tuple)) else [feature]
        if not all(isinstance(layer, Tensor) and layer.dim() == 3 for layer in layers):
            raise UpstreamError(f"The upstream's `{self.feature_selection}` must hold (batch, time, width) tensors.")
        self.layer_num, self.output_dim = len(layers), layers[0].size(-1)

        options = dict(interface_options or {})
        if normalize:
            options["normalize"] = True
        if layer_selection is not None and interface != DEFAULT_INTERFACE:
            raise ConfigError(f"`-l` takes one layer, `{interface}` combines layers: use one of the two.")
        if len(layers) > 1 or interface != DEFAULT_INTERFACE:
            self.interface = _build(interface, layers, options)
            self.output_dim = self.interface.output_dim
        self.downsample_rate = _downsample_rate(upstream, self.feature_selection, layers[0].size(1))
        self.register_load_state_dict_pre_hook(_rename_s3prl_weights)

    def hidden_states(self, output: Mapping[str, Any]) -> list[Tensor]:
        """The hidden states of an upstream's output that the interface takes, each (batch, time, width)."""
        feature = self._select_feature(output)
        return list(feature) if isinstance(feature, (list, tuple)) else [feature]

    def frame_lengths(self, wavs: Sequence[Tensor], frames: int) -> Tensor:
        """Frames of each utterance, (batch,) int64, by S3PRL's rule: min(frames, round(samples / rate)).

        Raises:
            UpstreamError: the upstream's frames do not go with its downsample rate.
        """
        expected = [round(len(wav) / self.downsample_rate) for wav in wavs]
        if abs(frames - max(expected)) >= TOLERABLE_FRAMES:
            raise UpstreamError(
                f"The upstream gave {frames} frames for {max(map(len, wavs))} samples, where its downsample rate "
                f"{self.downsample_rate} means {max(expected)}: its get_downsample_rates() must be right."
            )
        return torch.tensor([min(frames, length) for length in expected])

    def forward(self, paired_wavs: Sequence[Tensor], paired_features: Mapping[str, Any]) -> list[Tensor]:
        """Combine the layers of one batch.

        Args:
            paired_wavs: one (samples,) tensor per utterance, 16 kHz.
            paired_features: what the upstream returned for them.

        Returns:
            One (frames, output_dim) tensor per utterance, without padding.
        """
        hidden_states = self.hidden_states(paired_features)
        if len(hidden_states) != self.layer_num:
            raise UpstreamError(
                f"The upstream gave {len(hidden_states)} layers, and {self.layer_num} before: does it drop layers at "
                "random while it is trained (layerdrop)? Turn that off, or fine-tune with `-f -s last_hidden_state`."
            )
        lengths = self.frame_lengths(paired_wavs, hidden_states[0].size(1))
        features = hidden_states[0] if self.interface is None else self.interface(hidden_states, lengths)
        return [feature[:length] for feature, length in zip(features, lengths.tolist(), strict=True)]


class InterfaceNNFeaturizer(nn.Module):
    """An interface behind the contract of ``s3prl.nn.Featurizer`` (``s3prl/nn/upstream.py``).

    Its weighted sum has weights, and is normalised, also where there is one layer; S3PRL's has neither there.

    Args:
        upstream: an ``s3prl.nn.S3PRLUpstream``; only its sizes are read.
        interface: a registered name or ``package.module:Class``.
        interface_options: the interface's own arguments.
        layer_selections: which layers to use, 0-based; None: all.
        normalize: layer-normalise each hidden state without parameters.

    Raises:
        UpstreamError: layers of different widths or rates.
        ConfigError: a layer that is not there, or an interface that does not fit.
    """

    def __init__(
        self,
        upstream: Any,
        interface: str = DEFAULT_INTERFACE,
        interface_options: Mapping[str, Any] | None = None,
        layer_selections: Sequence[int] | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        if len(set(upstream.hidden_sizes)) != 1 or len(set(upstream.downsample_rates)) != 1:
            raise UpstreamError("An interface needs layers of one width and one frame rate.")
        everything = range(upstream.num_layers)
        self.layer_selections = sorted(everything if layer_selections is None else set(layer_selections))
        if not self.layer_selections or not set(self.layer_selections) <= set(everything):
            raise ConfigError(
                f"`layer_selections` must be among 0 to {upstream.num_layers - 1}, but is {layer_selections}."
            )
        self._downsample_rate = upstream.downsample_rates[0]
        options = dict(interface_options or {}) | ({"normalize": True} if normalize else {})
        self.interface = _build_from_sizes(interface, len(self.layer_selections), upstream.hidden_sizes[0], options)
        self.register_load_state_dict_pre_hook(_rename_s3prl_weights)

    @property
    def output_size(self) -> int:
        """Width of the features."""
        return self.interface.output_dim

    @property
    def downsample_rate(self) -> int:
        """Samples (16 kHz) per frame."""
        return self._downsample_rate

    def forward(self, all_hs: Sequence[Tensor], all_lens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Combine the selected layers.

        Args:
            all_hs: every layer's (batch, time, width).
            all_lens: every layer's (batch,) frames per utterance.

        Returns:
            (batch, time, output_size) and the (batch,) frames per utterance.

        Raises:
            ValueError: the selected layers disagree about the lengths.
        """
        hidden_states = [all_hs[layer] for layer in self.layer_selections]
        lengths = [all_lens[layer] for layer in self.layer_selections]
        if any(not torch.equal(lengths[0], other) for other in lengths[1:]):
            raise ValueError("The selected layers have different lengths.")
        return self.interface(hidden_states, lengths[0]), lengths[0]


def _build(interface: str, layers: Sequence[Tensor], options: Mapping[str, Any]) -> Interface:
    widths = sorted({layer.size(-1) for layer in layers})
    if len(widths) != 1 or len({layer.size(1) for layer in layers}) != 1:
        raise UpstreamError(f"An interface needs layers of one width and one length; here are widths {widths}.")
    return _build_from_sizes(interface, len(layers), widths[0], options)


def _build_from_sizes(interface: str, num_layers: int, width: int, options: Mapping[str, Any]) -> Interface:
    try:
        return build_interface(interface, num_layers=num_layers, feature_dim=width, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"interface: {error}") from error


def _present_key(output: Any, key: str) -> str:
    if not isinstance(output, Mapping):
        raise UpstreamError(f"The upstream must return a dict, but returns {type(output).__name__}.")
    if key in output:
        return key
    possible = ", ".join(map(str, output))
    if "hidden_states" not in output:
        raise UpstreamError(f"The upstream gives no `{key}` (`-s`) and no `hidden_states`. Possible: {possible}.")
    # As S3PRL does.
    logger.warning("The upstream gives no `%s` (`-s`); `hidden_states` is used. Possible: %s.", key, possible)
    return "hidden_states"


def _downsample_rate(upstream: nn.Module, key: str, frames: int) -> int:
    rates: Callable[[str], int] | None = getattr(upstream, "get_downsample_rates", None)
    return rates(key) if rates is not None else round(SAMPLE_RATE / frames)


def _rename_s3prl_weights(_: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """Let the weighted sum of an S3PRL checkpoint (``weights``) load into ``interface.weights``."""
    if prefix + "weights" in state:
        state[prefix + "interface.weights"] = state.pop(prefix + "weights")
