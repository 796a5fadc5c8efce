"""PCA and concatenation.

Paper: Shih & Harwath 2024, "Interface Design for Self-Supervised Speech Models" (arXiv 2406.12209), Table 1,
"PCA + Concat".

    features = concat_l components[l] @ (hidden_states[l] - mean[l])       L states of D -> L * k channels

with the first k = ceil(D / L) principal components of each layer (60 of 768 for HuBERT Base, in all 780
channels), found on the frames of the downstream task's training split. Nothing is trained.

The released reference code does not have it. Ours: the frames are streamed as count, mean and scatter matrix
in float64, merged batch by batch (Chan, Golub & LeVeque 1979) so that a mean far from zero costs no digits;
the component of largest magnitude of each principal direction is positive; the projections are not whitened.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from s3prl_interfaces.interfaces.base import Interface, NotFittedError, check_int, valid_frames
from s3prl_interfaces.interfaces.registry import register_interface


@register_interface("pca_concat", paper="arXiv 2406.12209, Table 1: PCA + Concat", fitted=True)
class PCAConcat(Interface):
    """The first principal components of each layer, concatenated; fitted, not trained.

    Call :meth:`partial_fit` with every batch of the training split, then :meth:`finish_fit`, or load the
    state dict of an interface that was fitted.

    Args:
        num_layers: L.
        feature_dim: D.
        num_components: Components kept of each layer, k, from 1 to D; ceil(D / L) if not given.
        normalize: Layer-normalise each hidden state first, in fitting as well.

    Attributes:
        num_components: k.
        mean: Buffer, shape (L, D).
        components: Buffer, shape (L, k, D); orthonormal rows, that of the largest variance first.
        fitted: Buffer, whether the other two are those of a finished fit.

    Raises:
        ValueError: ``num_components`` is not an integer from 1 to D.
    """

    mean: Tensor
    components: Tensor
    fitted: Tensor

    def __init__(
        self,
        num_layers: int,
        feature_dim: int,
        *,
        num_components: int | None = None,
        normalize: bool = False,
    ) -> None:
        num_layers = check_int("num_layers", num_layers)
        feature_dim = check_int("feature_dim", feature_dim)
        if num_components is None:
            num_components = -(-feature_dim // num_layers)
        if check_int("num_components", num_components) > feature_dim:
            raise ValueError(
                f"`num_components` must be at most the {feature_dim} channels of a state, but is {num_components}."
            )
        super().__init__(num_layers, feature_dim, output_dim=num_layers * num_components, normalize=normalize)
        self.num_components = num_components
        self.register_buffer("mean", torch.zeros(num_layers, feature_dim))
        self.register_buffer("components", torch.zeros(num_layers, num_components, feature_dim))
        self.register_buffer("fitted", torch.tensor(False))
        self._statistics: _Statistics | None = None
        # Asking a buffer on a GPU makes the host wait, so ask only until it says yes, and after loading.
        self._known_fitted = False
        self.register_load_state_dict_post_hook(_ask_again)

    def partial_fit(
        self,
        hidden_states: Sequence[Tensor] | Tensor,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> None:
        """Take one batch into account; the first after :meth:`finish_fit` begins a new fit.

        The statistics, about ``8 * L * D * D`` bytes, lie on the first batch's device, in no state dict.

        Args:
            hidden_states: As for :meth:`forward`.
            lengths: Valid frames of each utterance, shape (B,); those beyond are left out. All, if not given.

        Raises:
            ValueError: As for :meth:`forward`, or a length is negative or more than T.
        """
        with torch.no_grad():
            layers, lengths = self.prepare(hidden_states, lengths)
            if self._statistics is None:
                self._statistics = _Statistics(self.num_layers, self.feature_dim, layers[0].device)
            self._statistics.add([valid_frames(layer, lengths) for layer in layers])

    def finish_fit(self) -> None:
        """Make the projection from all batches seen, and forget them.

        Raises:
            NotFittedError: There were no more frames than components, or some were not finite.
        """
        statistics, needed = self._statistics, self.num_components + 1
        seen = 0 if statistics is None else statistics.count
        if statistics is None or seen < needed:
            raise NotFittedError(
                f"pca_concat must see at least {needed} frames to find {self.num_components} components, "
                f"but has seen {seen}: call partial_fit with more batches first."
            )
        if not statistics.scatter.isfinite().all():
            raise NotFittedError("pca_concat must see finite hidden states, but some were NaN or infinite.")
        for layer, scatter in enumerate(statistics.scatter):
            _, vectors = torch.linalg.eigh(scatter)  # columns, smallest variance first
            components = vectors[:, -self.num_components :].flip(1).T
            largest = components.gather(1, components.abs().argmax(1, keepdim=True))
            self.components[layer] = components * largest.sign()
        self.mean.copy_(statistics.mean)
        self.fitted.fill_(True)
        self._statistics = None

    def combine(self, layers: Sequence[Tensor], lengths: Tensor | None) -> Tensor:
        """Project L states (B, T, D) to (B, T, L * k).

        Raises:
            NotFittedError: It was neither fitted nor loaded.
        """
        if not self._known_fitted:
            if not self.fitted:
                raise NotFittedError(
                    "pca_concat must be fitted before it is used: call partial_fit with every batch of the "
                    "training split, then finish_fit, or load a fitted state dict."
                )
            self._known_fitted = True
        projected = []
        for layer, mean, components in zip(layers, self.mean, self.components, strict=True):
            centred = layer - mean
            projected.append(F.linear(centred, components.to(centred.dtype)))
        return torch.cat(projected, dim=-1)

    def extra_repr(self) -> str:
        """Show the number of components beside the sizes."""
        return f"{super().extra_repr()}, num_components={self.num_components}"


class _Statistics:
    """Frames seen, their mean (L, D) and their scatter matrix (L, D, D) around it, in float64."""

    def __init__(self, num_layers: int, feature_dim: int, device: torch.device) -> None:
        self.count = 0
        self.mean = torch.zeros(num_layers, feature_dim, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(num_layers, feature_dim, feature_dim, dtype=torch.float64, device=device)

    def add(self, layers: Sequence[Tensor]) -> None:
        """Merge the frames of one batch, L tensors of shape (N, D)."""
        added = len(layers[0])
        if not added:
            return
        total = self.count + added
        for mean, scatter, layer in zip(self.mean, self.scatter, layers, strict=True):
            frames = layer.to(mean)  # device and dtype
            batch_mean = frames.mean(0)
            frames = frames - batch_mean
            shift = batch_mean - mean
            scatter.addmm_(frames.T, frames).addr_(shift, shift, alpha=self.count * added / total)
            mean.add_(shift, alpha=added / total)
        self.count = total


def _ask_again(module: PCAConcat, _: object) -> None:
    module._known_fitted = False
