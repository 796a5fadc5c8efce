"""HuBERT's masked prediction (Hsu et al., 2021) on a CPU: hide spans of frames, recognise their clusters."""

import logging
import time
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from tqdm import tqdm
from transformers import HubertModel

from s3prl_interfaces.tiny_hubert.corpus import HOP, SAMPLE_RATE, WINDOW, Corpus, Crop, crops, endless_batches
from s3prl_interfaces.tiny_hubert.distortion import distort
from s3prl_interfaces.tiny_hubert.network import normalized
from s3prl_interfaces.tiny_hubert.schedule import make_optimizer, update
from s3prl_interfaces.tiny_hubert.targets import Targets

logger = logging.getLogger(__name__)

_LOG_EVERY = 100  # updates


@dataclass(frozen=True)
class Round:
    """One of HuBERT's rounds; the defaults, where they differ from HuBERT's, are what a CPU has time for.

    Attributes:
        clusters: Number of k-means clusters.
        updates: Optimizer steps.
        learning_rate: At its highest.
        batch: Utterances an update.
        crop_seconds: Most seconds of an utterance.
        span: Frames of a hidden span (HuBERT's are 10).
        start: Share of frames at which one begins.
        hidden_share: Weight of hidden frames in the loss, the rest is that of the others (HuBERT's is 1).
    """

    clusters: int
    updates: int
    learning_rate: float = 2e-3
    batch: int = 8
    crop_seconds: float = 3.0
    span: int = 6
    start: float = 0.08
    hidden_share: float = 0.5


def train(model: HubertModel, corpus: Corpus, targets: Targets, plan: Round, seed: int, name: str) -> None:
    """Train ``model`` in place for one round; the input is distorted, the targets are those of the clean speech.

    Args:
        model: Trained on the device on which it is.
        corpus: The speech.
        targets: The cluster of each of its frames.
        plan: The round.
        seed: Of batches, crops, masks, distortions, dropout and the predictors' weights.
        name: Shown with the progress and in the log.
    """
    torch.manual_seed(seed)
    random, noise = Random(seed), Generator().manual_seed(seed)
    device = model.device
    predictor = nn.Linear(model.config.hidden_size, plan.clusters).to(device)
    weights = [weight for weight in (*model.parameters(), *predictor.parameters()) if weight.requires_grad]
    optimizer, schedule = make_optimizer(weights, plan.learning_rate, plan.updates)
    batches = endless_batches(corpus, plan.batch, round(plan.crop_seconds * SAMPLE_RATE), random)
    seen: list[Tensor] = []
    began = time.monotonic()
    model.train()
    for step in tqdm(range(1, plan.updates + 1), desc=name, unit="update", disable=None):
        batch = next(batches)
        wavs, wanted = crops(corpus, batch), _clusters(targets, batch)
        hidden = draw_mask(len(wanted), wanted.size(1), plan, noise).to(device)
        wavs, wanted = normalized(distort(wavs, noise)).to(device), wanted.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            frames = model(wavs, mask_time_indices=hidden).last_hidden_state
        logits = predictor(frames.float())
        losses = functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
        loss = plan.hidden_share * losses[hidden].mean() + (1 - plan.hidden_share) * losses[~hidden].mean()
        update(loss, optimizer, schedule)
        right = (logits.argmax(dim=-1) == wanted).float()
        # Tensors, read when they are logged: each reading would make a GPU wait.
        seen.append(torch.stack([losses[hidden].detach().mean(), right[hidden].mean(), right[~hidden].mean()]))
        if step % _LOG_EVERY == 0 or step == plan.updates:
            loss_hidden, accuracy_hidden, accuracy_shown = torch.stack(seen).mean(dim=0).tolist()
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


def _clusters(targets: Targets, batch: list[Crop]) -> Tensor:
    """The clusters of the frames of crops, ``(batch, frames)``."""
    wanted = [
        targets.of(crop.utterance)[crop.start // HOP :][: (crop.length - WINDOW) // HOP + 1].astype(np.int64)
        for crop in batch
    ]
    return torch.from_numpy(np.stack(wanted))
