"""What is probed: each hidden state of an upstream, and log-mel filterbanks as the baseline that nobody trained."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from s3prl_interfaces.errors import UpstreamError
from s3prl_interfaces.probing.data import HOP, ProbeTask, Utterance, frame_count

TOLERABLE_FRAMES = 5
"""Frames by which an upstream may fall short of an utterance's end, as in S3PRL; the last one is then repeated."""

Extractor = Callable[[Tensor], Sequence[Tensor]]
"""Samples (samples,) to one (frames, width) for each layer, at 50 frames a second."""


@dataclass(frozen=True)
class Examples:
    """The examples of one split, N frames or utterances.

    Attributes:
        layers: For each layer, (N, width) float32.
        labels: (N,) int64.
        utterances: The number of the utterance that each example is of, (N,).
        groups: The number of its group, (N,).
    """

    layers: Sequence[Tensor]
    labels: Tensor
    utterances: NDArray[np.int64]
    groups: NDArray[np.int64]


def upstream_extractor(upstream: nn.Module) -> Extractor:
    """Extract all hidden states of an upstream, one utterance at a time, so that no padding is seen.

    An upstream of another frame rate is read at 50 frames a second all the same: the labels are then the same for all.

    Raises:
        UpstreamError: When called, if the upstream gives too few frames for its downsample rate.
    """
    upstream.eval()
    rate = upstream.get_downsample_rates("hidden_states")  # type: ignore[operator]
    device = next(upstream.parameters(), torch.empty(0)).device

    def extract(wav: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            states = upstream([wav.to(device)])["hidden_states"]
        wanted = torch.arange(frame_count(len(wav))) * HOP // rate
        frames = states[0].size(1)
        if wanted[-1] >= frames + TOLERABLE_FRAMES:
            raise UpstreamError(
                f"The upstream gave {frames} frames for {len(wav)} samples: too few for its downsample rate {rate}."
            )
        return [state[0].float().cpu()[wanted.clamp(max=frames - 1)] for state in states]

    return extract


def log_mel(wav: Tensor) -> list[Tensor]:
    """80 log-mel filterbanks of 25 ms windows every 20 ms (Kaldi's): one "layer" (frames, 80)."""
    banks = torchaudio.compliance.kaldi.fbank(
        32768 * wav[None], num_mel_bins=80, frame_length=25, frame_shift=1000 * HOP / 16000
    )
    return [banks]


def with_random_weights(upstream: nn.Module, seed: int) -> nn.Module | None:
    """Copy an upstream whose attribute ``model`` is a transformers model, and draw that model's weights anew.

    Returns:
        The copy, or None where there is no such model. The global random state is left as it is.
    """
    from transformers import PreTrainedModel

    model = getattr(upstream, "model", None)
    if not isinstance(model, PreTrainedModel):
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = type(model)(copy.deepcopy(model.config))
    fresh = copy.deepcopy(upstream)
    # Not fresh.model = drawn: whatever the upstream has changed about its model stays.
    fresh.get_submodule("model").load_state_dict(drawn.state_dict())
    return fresh


def examples(task: ProbeTask, split: str, extract: Extractor, name: str) -> Examples:
    """Extract one split of a task: all frames, or the mean over time of each utterance.

    Args:
        task: What is probed for.
        split: ``"train"`` or ``"test"``.
        extract: What is probed.
        name: What it is called in the progress bar.
    """
    utterances: Sequence[Utterance] = getattr(task, split)
    layers: list[list[Tensor]] = []
    for utterance in tqdm(utterances, desc=f"{task.name}: {name}, {split}", unit="wav", disable=None):
        states = extract(utterance.wav())
        if not task.by_frame:
            states = [state.mean(dim=0, keepdim=True) for state in states]
        layers.append(list(states))
    counts = [len(utterance.labels) for utterance in utterances]
    groups = {group: index for index, group in enumerate(sorted({utterance.group for utterance in utterances}))}
    return Examples(
        layers=[torch.cat(parts) for parts in zip(*layers, strict=True)],
        labels=torch.from_numpy(np.concatenate([utterance.labels for utterance in utterances])),
        utterances=np.repeat(np.arange(len(utterances)), counts),
        groups=np.repeat([groups[utterance.group] for utterance in utterances], counts),
    )
