"""Evaluate one split: one pass of the upstream, every lane's head, every utterance once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.runner.batches import iterate, run_upstream, split_loader, to_device
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.randomness import Stream, capture, preserved


@dataclass(frozen=True)
class Evaluation:
    """What one lane's head said of one split."""

    metrics: dict[str, float]
    """By the names the expert logs them under (``acc``, ``wer``, ``loss``, ...)."""
    checkpoints: list[str]
    """File names under which the expert wants the present weights kept (``dev-best.ckpt``)."""
    utterances: int


def evaluate(
    upstream: nn.Module,
    lanes: Sequence[Lane],
    split: str,
    *,
    steps: Sequence[int],
    seed: int,
    device: torch.device,
    ratio: float = 1.0,
) -> list[Evaluation | None]:
    """Evaluate ``split`` for every lane, in full precision.

    Training goes on afterwards as if nothing had happened: modes and all random states are put back. Inside, the seed
    is set, as in S3PRL, so that each evaluation of the same weights gives the same numbers.

    Args:
        upstream: the speech model.
        lanes: at least one.
        split: a name the task's ``get_dataloader`` knows.
        steps: each lane's training step, for TensorBoard.
        seed: the evaluation's own.
        device: where the models are.
        ratio: share of the batches to see; final scores use 1.

    Returns:
        One for each lane; None for a lane that failed.

    Raises:
        ConfigError: the task has no such split, or it is empty.
    """
    modules = [upstream, *(module for lane in lanes for module in lane.modules.values())]
    modes = [module.training for module in modules]
    with preserved(seed), torch.no_grad():
        for module in modules:
            module.eval()
        try:
            return _evaluate(upstream, lanes, split, steps, device, ratio)
        finally:
            for module, training in zip(modules, modes, strict=True):
                module.train(training)


def _evaluate(
    upstream: nn.Module, lanes: Sequence[Lane], split: str, steps: Sequence[int], device: torch.device, ratio: float
) -> list[Evaluation | None]:
    streams = [Stream(capture()) for _ in lanes]
    loader = split_loader(lanes[0].head, split)
    batches = max(1, round(len(loader) * ratio))
    records: list[dict[str, list[Any]]] = [defaultdict(list) for _ in lanes]
    utterances = 0
    for batch_id, (wavs, *others) in enumerate(
        tqdm(iterate(loader), total=batches, desc=split, dynamic_ncols=True, leave=False)
    ):
        if batch_id == batches:
            break
        wavs = to_device(wavs, device)
        utterances += len(wavs)
        output = run_upstream(upstream, wavs)
        for lane, lane_records, stream, step in zip(lanes, records, streams, steps, strict=True):
            if lane.failed is None:
                with lane.guard(step), stream.use():
                    lane.loss(split, wavs, output, others, records=lane_records, batch_id=batch_id)
    evaluations: list[Evaluation | None] = []
    for lane, lane_records, step in zip(lanes, records, steps, strict=True):
        evaluation = None
        if lane.failed is None:
            with lane.guard(step):
                evaluation = _log(lane, split, lane_records, step, batches, len(loader), utterances)
        evaluations.append(evaluation)
    return evaluations


def _log(
    lane: Lane,
    split: str,
    records: dict[str, list[Any]],
    step: int,
    batches: int,
    total: int,
    utterances: int,
) -> Evaluation:
    names = lane.head.log_records(
        split,
        records=records,
        logger=lane.logger,
        global_step=step,
        batch_ids=list(range(batches)),
        total_batch_num=total,
    )
    return Evaluation(lane.logger.take(split), names if isinstance(names, list) else [], utterances)
