"""HuBERT's masked prediction (Hsu et al., 2021) on a CPU: hide spans of frames, recognise their clusters."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import HubertModel

from s3prl_interfaces.tiny_hubert.corpus import SAMPLE_RATE, Corpus, Crop, draw_batches
from s3prl_interfaces.tiny_hubert.distortion import distort
from s3prl_interfaces.tiny_hubert.network import HOP, WINDOW, normalized
from s3prl_interfaces.tiny_hubert.targets import Targets

logger = logging.getLogger(__name__)

_TEMPERATURE = 0.1  # HuBERT's
_PREDICTION_WIDTH = 64
_LOG_EVERY = 100  # updates


@dataclass(frozen=True)
class Round:
    """One of HuBERT's rounds; the defaults, where they differ from HuBERT's, are what a CPU has time for.

    Attributes:
        clusters: Number of k-means clusters.
        updates: Optimizer steps.
        distorted: Whether the input gets rooms, noise and other voices.
        learning_rate: At its highest, after the warm-up; it falls to zero in a straight line.
        batch: Utterances an update.
        crop_seconds: Most seconds of an utterance.
        span: Frames of a hidden span (HuBERT's are 10).
        start: Share of frames at which one begins.
        hidden_share: Weight of hidden frames in the loss, the rest is that of the others (HuBERT's is 1). What can be
            seen is learned much sooner, and with it the filters of the first layers.
        warmup: Share of the updates.
        weight_decay: Of AdamW.
    """

    clusters: int
    updates: int
    distorted: bool
    learning_rate: float = 1.5e-3
    batch: int = 8
    crop_seconds: float = 3.0
    span: int = 6
    start: float = 0.08
    hidden_share: float = 0.5
    warmup: float = 0.08
    weight_decay: float = 0.01


class Predictor(nn.Module):
    """Which cluster a frame is of: cosine similarity of its projection to an embedding of each cluster."""

    def __init__(self, width: int, clusters: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, _PREDICTION_WIDTH)
        self.embeddings = nn.Parameter(torch.randn(clusters, _PREDICTION_WIDTH))

    def forward(self, frames: Tensor) -> Tensor:
        """``(batch, frames, width)`` to logits ``(batch, frames, clusters)``."""
        projected = functional.normalize(self.projection(frames), dim=-1)
        return projected @ functional.normalize(self.embeddings, dim=-1).T / _TEMPERATURE


def train(model: HubertModel, corpus: Corpus, targets: Targets, plan: Round, seed: int, name: str) -> None:
    """Train ``model`` in place for one round.

    Args:
        model: Trained on the device on which it is.
        corpus: The speech.
        targets: The cluster of each of its frames.
        plan: The round.
        seed: Of batches, crops, masks, distortions, dropout and the predictor's weights.
        name: Shown with the progress and in the log.
    """
    torch.manual_seed(seed)
    random, noise = Random(seed), Generator().manual_seed(seed)
    device = model.device
    predictor = Predictor(model.config.hidden_size, plan.clusters).to(device)
    weights = [*model.parameters(), *predictor.parameters()]
    optimizer = torch.optim.AdamW(
        weights, lr=plan.learning_rate, betas=(0.9, 0.98), eps=1e-6, weight_decay=plan.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, plan))
    batches = _endless(corpus, plan, random)
    seen: list[tuple[float, float, float]] = []
    began = time.monotonic()
    model.train()
    for step in tqdm(range(1, plan.updates + 1), desc=name, unit="update", disable=None):
        wavs, wanted = _batch(corpus, targets, next(batches))
        hidden = draw_mask(len(wanted), wanted.size(1), plan, noise).to(device)
        wavs = normalized(distort(wavs, noise) if plan.distorted else wavs).to(device)
        wanted = wanted.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            frames = model(wavs, mask_time_indices=hidden).last_hidden_state
        logits = predictor(frames.float())
        losses = functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        loss = plan.hidden_share * losses[hidden].mean() + (1 - plan.hidden_share) * losses[~hidden].mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        right = (logits.argmax(dim=-1) == wanted).float()
        seen.append((losses[hidden].mean().item(), right[hidden].mean().item(), right[~hidden].mean().item()))
        if step % _LOG_EVERY == 0 or step == plan.updates:
            loss_hidden, accuracy_hidden, accuracy_shown = np.mean(seen, axis=0)
            logger.info(
                "%s: update %d of %d, hidden frames: loss %.3f, accuracy %.3f; the others: accuracy %.3f; %.0f s",
                *(name, step, plan.updates, loss_hidden, accuracy_hidden, accuracy_shown, time.monotonic() - began),
            )
            seen.clear()


def draw_mask(batch: int, frames: int, plan: Round, random: Generator) -> Tensor:
    """Draw which frames are hidden: spans that may overlap.

    Returns:
        ``(batch, frames)``, bool; at least one frame of each utterance is hidden, and one of the batch is not.
    """
    starts = torch.rand(batch, frames, generator=random) < plan.start
    first = torch.randint(frames, (batch,), generator=random)
    starts[torch.arange(batch), first] = True
    hidden = torch.zeros_like(starts)
    for shift in range(min(plan.span, frames)):
        hidden[:, shift:] |= starts[:, : frames - shift]
    if hidden.all():  # then the other frames would have no mean
        hidden[0, int(first[0]) - 1] = False
    return hidden


def _rate(step: int, plan: Round) -> float:
    rising = max(1.0, plan.warmup * plan.updates)
    return min(step / rising, max(0.0, (plan.updates - step) / (plan.updates - rising)))


def _endless(corpus: Corpus, plan: Round, random: Random) -> Iterator[list[Crop]]:
    while True:
        yield from draw_batches(corpus, plan.batch, round(plan.crop_seconds * SAMPLE_RATE), random)


def _batch(corpus: Corpus, targets: Targets, crops: list[Crop]) -> tuple[Tensor, Tensor]:
    """Waveforms ``(batch, time)`` and the clusters of their frames ``(batch, frames)``."""
    wavs = [corpus.wav(crop.utterance)[crop.start : crop.start + crop.length] for crop in crops]
    wanted = [
        targets.of(crop.utterance)[crop.start // HOP :][: (crop.length - WINDOW) // HOP + 1].astype(np.int64)
        for crop in crops
    ]
    return torch.stack(wavs), torch.from_numpy(np.stack(wanted))
