"""The gradients of one update: its micro-batches forward and backward through every lane."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_interfaces.errors import UserError
from s3prl_interfaces.featurizer import SAMPLE_RATE
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.batches import run_upstream
from s3prl_interfaces.runner.config import RunnerConfig
from s3prl_interfaces.runner.lane import Lane, living

log = logging.getLogger(__name__)


@dataclass(eq=False)
class MicroBatch:
    """What the loader gave, and what the heads made of it."""

    wavs: Sequence[Tensor]
    """One (samples,) tensor an utterance, where the models are."""
    others: Sequence[Any]
    """What else the heads take: each with one entry an utterance."""
    number: int
    """In its epoch, from 0."""
    utterances: int
    """Those of the micro-batches of all processes at this moment."""
    losses: dict[Lane, Tensor] = field(default_factory=dict)
    """The mean over its utterances, by lane."""

    @property
    def divisible(self) -> int:
        """Into how many parts it could be divided."""
        return len(self.wavs) if all(len(other) == len(self.wavs) for other in self.others) else 1

    def parts(self, count: int) -> Iterator[tuple[Sequence[Tensor], Sequence[Any]]]:
        """Divide it into at most ``count`` parts of about the same size."""
        if count == 1:
            yield self.wavs, self.others
            return
        size = -(-len(self.wavs) // count)
        for begin in range(0, len(self.wavs), size):
            piece = slice(begin, begin + size)
            yield self.wavs[piece], [other[piece] for other in self.others]

    @property
    def names(self) -> list[str]:
        """Of its utterances, where the loader gives any."""
        for other in self.others:
            if isinstance(other, (list, tuple)) and other and all(isinstance(name, str) for name in other):
                return list(other)
        return []


class Accumulation:
    """Gathers gradients in the lanes' parameters until :meth:`begin` is called again.

    A micro-batch that is too large for the GPU's memory goes through in halves, and so do those after it. The
    gradients are then the same but for rounding, and what is drawn at random.

    Args:
        upstream: in eval mode and without gradients, unless it is trained.
        lanes: those that have not failed are used.
        runner: the config's ``runner`` block.
        device: where the models are.
        upstream_trainable: whether gradients go into the upstream.
    """

    def __init__(
        self,
        upstream: nn.Module,
        lanes: Sequence[Lane],
        runner: RunnerConfig,
        device: torch.device,
        upstream_trainable: bool,
    ) -> None:
        self.upstream = upstream
        self.lanes = lanes
        self.runner = runner
        self.upstream_trainable = upstream_trainable
        self.parts = 1
        """Into how many a micro-batch is divided."""
        self._autocast = torch.autocast(
            device.type, dtype=torch.bfloat16 if runner.bf16 else torch.float16, enabled=runner.fp16 or runner.bf16
        )
        self._full: Lane | None = None
        """In which lane memory ran out; None: in the upstream."""
        self.begin()

    def begin(self) -> None:
        """The gradients were used; what comes now is of the next update."""
        self.batches: list[MicroBatch] = []
        for lane in self.lanes:
            lane.mark()

    def add(self, batch: MicroBatch, step: int) -> None:
        """Add a micro-batch's gradients.

        Args:
            batch: may be of no utterance, where other processes have some.
            step: of the update, from 1.

        Raises:
            UserError: one utterance alone does not fit into the GPU's memory, or no lane is left.
        """
        self.batches.append(batch)
        todo = [batch]
        while not self._fits(todo, step):
            self._make_smaller(step)
            todo = self.batches

    def suspects(self, lane: Lane) -> str:
        """The utterances by which a lane's gradient may have become not finite."""
        broken = [batch for batch in self.batches if lane in batch.losses and not batch.losses[lane].isfinite()]
        told = "The loss was not finite with" if broken else "The losses were finite; the utterances are"
        batches = broken or self.batches
        names = [name for batch in batches for name in batch.names]
        numbers = ", ".join(str(batch.number) for batch in batches)
        return f"{told} {', '.join(names) if names else f'those of batch {numbers} of the epoch'}"

    def _fits(self, batches: Sequence[MicroBatch], step: int) -> bool:
        for batch in batches:
            batch.losses.clear()
            if len(batch.wavs) and not all(self._pass(batch, *part, step) for part in batch.parts(self.parts)):
                return False
            for lane in batch.losses:
                lane.batch_ids.append(batch.number)
        return True

    def _pass(self, batch: MicroBatch, wavs: Sequence[Tensor], others: Sequence[Any], step: int) -> bool:
        """Forward and backward of every lane, the graph of one lane at a time; False where memory ran out."""
        self._full = None
        try:
            with self._autocast, torch.set_grad_enabled(self.upstream_trainable):
                output = run_upstream(self.upstream, wavs)
        except torch.OutOfMemoryError:
            return False
        for lane in living(self.lanes):
            with lane.guard(step - 1), lane.stream.use():
                try:
                    self._backward(lane, batch, wavs, output, others)
                except torch.OutOfMemoryError:
                    self._full = lane
            if self._full is not None:
                return False
        return True

    def _backward(
        self, lane: Lane, batch: MicroBatch, wavs: Sequence[Tensor], output: Any, others: Sequence[Any]
    ) -> None:
        with self._autocast:
            loss = lane.loss(self.runner.train_dataloader, wavs, output, others, records=lane.records)
        # Of the mean over the utterances of all processes, of whose sums the mean will be taken.
        share = len(wavs) / batch.utterances * distributed.world_size()
        lane.scaler.scale(loss * share / self.runner.gradient_accumulate_steps).backward()
        part = loss.detach() * (len(wavs) / len(batch.wavs))
        batch.losses[lane] = batch.losses[lane] + part if lane in batch.losses else part

    def _make_smaller(self, step: int) -> None:
        """Undo the update's gradients, and divide micro-batches into more parts.

        Raises:
            UserError: they cannot be divided any more, and there is no lane to leave behind.
        """
        largest = max(len(batch.wavs) for batch in self.batches)
        most = max(batch.divisible for batch in self.batches)
        longest = max(len(wav) for batch in self.batches for wav in batch.wavs) / SAMPLE_RATE
        count = -(-largest // self.parts)
        utterances = f"{count} utterances" if count > 1 else "1 utterance"
        what = f"Out of GPU memory at step {step} with {utterances} of up to {longest:.1f} s"
        if self.parts >= most:
            error = UserError(
                f"{what}, which cannot be divided any more: leave long ones out (`max_seconds` with `skip_bad_audio`, "
                "in the task's config), train fewer lanes side by side, or use half precision (`-o "
                "config.runner.bf16=true`). Then continue with `-a`."
            )
            if self._full is None or not self._full.has_company:
                raise error
            self._full.stop(step - 1, error)
            self.parts = 1  # the others may not need more
        else:
            self.parts = min(2 * self.parts, most)
            log.warning("%s: from now on batches go through in %d parts.", what, self.parts)
        for lane in self.lanes:
            lane.rewind()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
