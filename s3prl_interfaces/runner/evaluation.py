"""Evaluate one split: one pass of the upstream, every lane's head, every utterance once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import torch
from torch import nn

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.batches import Batches, run_upstream, to_device
from s3prl_interfaces.runner.interruption import stop_if_requested
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.progress import progress_bar
from s3prl_interfaces.runner.randomness import Stream, capture, preserved

Records = dict[str, list[Any]]


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

    Several processes share the batches; the first one puts together what the heads recorded, and logs it.

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
        UserError: a batch does not fit into the GPU's memory.
        Stopped: a signal asked for it.
    """
    modules = [upstream, *(module for lane in lanes for module in lane.modules.values())]
    modes = [module.training for module in modules]
    with preserved(seed), torch.no_grad():
        for module in modules:
            module.eval()
        try:
            return _evaluate(upstream, lanes, split, steps, device, ratio)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"Out of GPU memory in an evaluation of `{split}`: lower the task's `eval_batch_size`, as in `-o "
                "config.downstream_expert.datarc.eval_batch_size=4`, and continue with `-a`."
            ) from error
        finally:
            for module, training in zip(modules, modes, strict=True):
                module.train(training)


def _evaluate(
    upstream: nn.Module, lanes: Sequence[Lane], split: str, steps: Sequence[int], device: torch.device, ratio: float
) -> list[Evaluation | None]:
    streams = [Stream(capture()) for _ in lanes]
    batches = Batches(lanes[0].head, split, shared=True)
    limit = max(1, round(len(batches) * ratio))
    utterances = 0
    alone = distributed.world_size() == 1
    records: list[Records] = [defaultdict(list) for _ in lanes]
    by_batch: list[tuple[int, list[Records]]] = []  # of this process, where there are several
    shown = progress_bar(batches, total=limit // distributed.world_size(), desc=split, leave=False)
    for batch_id, (wavs, *others) in zip(count(distributed.rank(), distributed.world_size()), shown, strict=False):
        stop_if_requested()
        if batch_id >= limit:
            break
        if not len(wavs):  # none could be read
            continue
        if not alone:
            records = [defaultdict(list) for _ in lanes]
            by_batch.append((batch_id, records))
        wavs = to_device(wavs, device)
        utterances += len(wavs)
        output = run_upstream(upstream, wavs)
        for lane, lane_records, stream, step in zip(lanes, records, streams, steps, strict=True):
            if lane.failed is None:
                with lane.guard(step), stream.use():
                    lane.loss(split, wavs, output, others, records=lane_records, batch_id=batch_id)
    if not alone:
        records, utterances = _together(by_batch, len(lanes)), distributed.total(utterances)
    evaluations: list[Evaluation | None] = [None] * len(lanes)
    if distributed.is_first():
        for index, (lane, lane_records, step) in enumerate(zip(lanes, records, steps, strict=True)):
            if lane.failed is None:
                with lane.guard(step):
                    evaluations[index] = _log(lane, split, lane_records, step, limit, len(batches), utterances)
    return distributed.from_first(evaluations)


def _together(by_batch: list[tuple[int, list[Records]]], lanes: int) -> list[Records]:
    """Every lane's records of all processes, in the order of the batches as one process would have it."""
    everything = sorted(chain.from_iterable(distributed.gathered(by_batch)), key=lambda entry: entry[0])
    together: list[Records] = [defaultdict(list) for _ in range(lanes)]
    for _, of_batch in everything:
        for mine, more in zip(together, of_batch, strict=True):
            for key, values in more.items():
                mine[key] += values
    return together


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
