"""An upstream whose hidden states are kept."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.feature_cache.store import Store


class CachedUpstream(nn.Module):
    """Behind S3PRL's contract: a frozen upstream, and what it said before.

    Utterances that are not stored run one at a time, in full precision: what is stored of one never depends on
    what else was in a batch, or on autocast. So a run with float32 is, bit for bit, the run without a cache in which no
    utterance is padded (``--upstream_unpadded``).

    Args:
        upstream: frozen and in eval mode.
        key: of its output: ``hidden_states``.
        layer: store this layer alone; None: all.
        dtype: in which hidden states are stored. They are given in float32, in half precision with what was lost,
            also the first time.
        store: where.
    """

    def __init__(self, upstream: nn.Module, key: str, layer: int | None, dtype: torch.dtype, store: Store) -> None:
        super().__init__()
        self.upstream = upstream
        self.key = key
        self.layer = layer
        self.dtype = dtype
        self.store = store

    def get_downsample_rates(self, key: str) -> int:
        """Samples of a frame."""
        return self.upstream.get_downsample_rates(key)  # type: ignore[operator]

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """Read what is stored, compute the rest.

        Args:
            wavs: utterances of *Shape:* (samples,), float32 at 16 kHz on the upstream's device. One with a true
                attribute ``drawn_at_random`` is not stored: it will not come again.

        Returns:
            Under ``key``: the layers, *Shape:* (batch, time, width) each, float32; 0 after an utterance's own frames.

        Raises:
            UpstreamError: a hidden state is too large for the dtype.
        """
        states = [self._states(wav) for wav in wavs]
        frames = max(state.size(1) for state in states)
        first = states[0]
        batch = first.new_zeros((len(first), len(states), frames, first.size(2)), dtype=torch.float32)
        for index, state in enumerate(states):
            batch[:, index, : state.size(1)] = state
        return {self.key: list(batch.to(wavs[0].device, non_blocking=True).unbind(0))}

    def _states(self, wav: Tensor) -> Tensor:
        """Of one utterance, (layers, time, width) in the store's dtype, on the CPU."""
        name = _name(wav)
        found = self.store.get(name)
        if found is not None:
            return found
        with torch.no_grad(), torch.autocast(wav.device.type, enabled=False):
            output = self.upstream([wav])
        states = self._selected(output).to("cpu", self.dtype)
        if not states.isfinite().all():
            raise UpstreamError(
                f"A hidden state is not finite in {self.dtype}: take bfloat16 or float32 as runner.feature_cache.dtype."
            )
        if not getattr(wav, "drawn_at_random", False):
            self.store.put(name, states)
        return states

    def _selected(self, output: Mapping[str, Any]) -> Tensor:
        states = output[self.key]
        layers = list(states.values()) if isinstance(states, Mapping) else states
        if isinstance(layers, Tensor):
            layers = [layers]
        if self.layer is not None and len(layers) > 1:
            layers = [layers[self.layer]]
        return torch.cat(list(layers))


def _name(wav: Tensor) -> str:
    return hashlib.blake2b(wav.detach().cpu().contiguous().numpy().data, digest_size=16).hexdigest()
