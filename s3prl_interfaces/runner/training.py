"""The training loop: S3PRL's order of events (``s3prl/downstream/runner.py``) over a list of lanes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.errors import DataError, UserError
from s3prl_interfaces.runner import randomness
from s3prl_interfaces.runner.batches import iterate, run_upstream, split_loader, to_device
from s3prl_interfaces.runner.config import RunnerConfig
from s3prl_interfaces.runner.evaluation import evaluate
from s3prl_interfaces.runner.lane import Lane

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where training stands. Everything that a continued run needs to be the run that was never stopped."""

    step: int = 0
    """Updates done."""
    epoch: int = 0
    batches: int = 0
    """Micro-batches of this epoch that are done."""
    epoch_random: dict[str, Any] | None = None
    """Random states when this epoch's loader was made: from them it deals the same batches again."""
    random: dict[str, Any] | None = None
    """Random states after the last update: of the data and the upstream. Each lane has its own beside these."""
    seconds: float = 0.0
    """Time spent training, evaluations included."""
    accumulated: int = 0
    """Micro-batches since the last update; 0 whenever a checkpoint is written, so it is not part of one."""

    def states(self) -> dict[str, Any]:
        """The keys of a checkpoint; ``Step`` and ``Epoch`` are S3PRL's."""
        return {
            "Step": self.step,
            "Epoch": self.epoch,
            "Batches": self.batches,
            "EpochRandom": self.epoch_random,
            "DataRandom": self.random,
            "Seconds": self.seconds,
        }

    @classmethod
    def from_states(cls, states: dict[str, Any]) -> Position:
        """Read a checkpoint's; one of S3PRL's has no place in the epoch, which then begins again, as there."""
        return cls(
            step=states["Step"],
            epoch=states.get("Epoch", 0),
            batches=states.get("Batches", 0),
            epoch_random=states.get("EpochRandom"),
            random=states.get("DataRandom"),
            seconds=states.get("Seconds", 0.0),
        )


class Trainer:
    """Trains lanes over one upstream.

    Args:
        upstream: in eval mode and without gradients, unless ``args.upstream_trainable``.
        lanes: started with :meth:`Lane.start_training`.
        upstream_trainable: whether the upstream is fine-tuned; there is one lane then.
        data_seed: of evaluations.
        runner: the config's ``runner`` block.
        device: where the models are.
        position: where to begin.
    """

    def __init__(
        self,
        upstream: nn.Module,
        lanes: Sequence[Lane],
        upstream_trainable: bool,
        data_seed: int,
        runner: RunnerConfig,
        device: torch.device,
        position: Position,
    ) -> None:
        self.upstream = upstream
        self.lanes = lanes
        self.upstream_trainable = upstream_trainable
        self.data_seed = data_seed
        self.runner = runner
        self.device = device
        self.position = position
        self.autocast = torch.autocast(
            device.type,
            dtype=torch.bfloat16 if runner.bf16 else torch.float16,
            enabled=runner.fp16 or runner.bf16,
        )
        self._began = time.monotonic() - position.seconds
        self._shown = -math.inf  # when the loss was

    def train(self) -> None:
        """Train until ``runner.total_steps`` updates are done.

        Raises:
            UserError: a batch does not fit into the GPU's memory, or no lane is left.
            DataError: an utterance cannot be read, or, where such are skipped, none can.
        """
        self.upstream.train(self.upstream_trainable)
        for lane in self.lanes:
            for module in lane.modules.values():
                module.train()
        with tqdm(
            total=self.runner.total_steps, initial=self.position.step, desc="train", dynamic_ncols=True
        ) as progress:
            while self.position.step < self.runner.total_steps:
                self._epoch(progress)

    def _epoch(self, progress: tqdm) -> None:
        position = self.position
        if position.epoch_random is not None:
            randomness.restore(position.epoch_random)
        else:
            position.epoch_random = randomness.capture()
        loader = split_loader(self.lanes[0].head, self.runner.train_dataloader, position.epoch)
        batches = iterate(loader)
        if position.batches:
            # Not silent: S3PRL's loaders cannot start in the middle, so the batches that were done are read again.
            skipped = tqdm(islice(batches, position.batches), total=position.batches, desc="skip batches already seen")
            for _ in skipped:
                pass
        if position.random is not None:
            randomness.restore(position.random)
            position.random = None
        read = position.batches > 0
        for wavs, *others in batches:
            read = True
            losses = self.micro_batch(to_device(wavs, self.device), others, position.batches)
            position.batches += 1
            position.accumulated = (position.accumulated + 1) % self.runner.gradient_accumulate_steps
            if position.accumulated:
                continue
            self._update(len(loader))
            if time.monotonic() - self._shown > 1:  # not at every step: a GPU waits wherever a number is read
                progress.set_postfix(loss=" ".join(f"{loss.item():.4f}" for loss in losses), refresh=False)
                self._shown = time.monotonic()
            progress.update()
            if position.step == self.runner.total_steps:
                return
        if not read:  # else the next epoch would look for one, and the next
            raise DataError(f"{self.runner.train_dataloader}: no utterance could be read.")
        position.epoch += 1
        position.batches = 0
        position.epoch_random = None

    def micro_batch(self, wavs: list[torch.Tensor], others: list[Any], batch_id: int) -> list[torch.Tensor]:
        """Forward and backward of every lane; the graph of one lane at a time. Returns the lanes' losses."""
        losses = []
        try:
            with self.autocast, torch.set_grad_enabled(self.upstream_trainable):
                output = run_upstream(self.upstream, wavs)
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(wavs) from error
        for lane in self.living():
            with lane.guard(self.position.step), lane.stream.use():
                losses.append(self._lane_batch(lane, wavs, output, others))
                lane.batch_ids.append(batch_id)
        return losses

    def _lane_batch(self, lane: Lane, wavs: list[torch.Tensor], output: Any, others: list[Any]) -> torch.Tensor:
        try:
            with self.autocast:
                loss = lane.loss(self.runner.train_dataloader, wavs, output, others, records=lane.records)
            lane.scaler.scale(loss / self.runner.gradient_accumulate_steps).backward()
        except torch.OutOfMemoryError as error:
            raise self._out_of_memory(wavs) from error
        return loss.detach()

    def _out_of_memory(self, wavs: list[torch.Tensor]) -> UserError:
        longest = max(len(wav) for wav in wavs) / 16000
        return UserError(
            f"Out of GPU memory at step {self.position.step + 1} with {len(wavs)} utterances of up to {longest:.1f} s: "
            "lower the train_batch_size and raise runner.gradient_accumulate_steps by the same factor, then continue "
            "with `-a`."
        )

    def living(self) -> list[Lane]:
        """The lanes that have not failed.

        Raises:
            UserError: all have.
        """
        living = [lane for lane in self.lanes if lane.failed is None]
        if not living:
            raise UserError("Every lane has failed: " + "; ".join(f"{lane.name}: {lane.failed}" for lane in self.lanes))
        return living

    def _update(self, batches: int) -> None:
        position, runner = self.position, self.runner
        position.step += 1
        step = position.step
        for lane in self.living():
            with lane.guard(step), lane.stream.use():
                lane.update(step)
                if step % runner.log_step == 0:
                    lane.log_training(runner.train_dataloader, step, batches)
        last = step == runner.total_steps
        names: dict[Lane, list[str]] = {lane: [] for lane in self.lanes}
        if step % runner.eval_step == 0 or last:
            self._evaluate(names)
        if step % runner.save_step == 0 or last:
            for lane_names in names.values():
                lane_names.append(f"states-{step}.ckpt")
        self._save(names)

    def _evaluate(self, names: dict[Lane, list[str]]) -> None:
        for split in self.runner.eval_dataloaders:
            lanes = self.living()
            evaluations = evaluate(
                self.upstream,
                lanes,
                split,
                steps=[self.position.step] * len(lanes),
                seed=self.data_seed,
                device=self.device,
                ratio=self.runner.evaluate_ratio,
            )
            for lane, evaluation in zip(lanes, evaluations, strict=True):
                if evaluation is None:
                    continue
                names[lane] += evaluation.checkpoints
                # A best on test is for looking at, never for choosing; unless the task says so (SUPERB's SV).
                selects_on_test = getattr(lane.head, "selects_on", None) == "test"
                chosen = [name for name in evaluation.checkpoints if name.startswith("test") == selects_on_test]
                lane.best = chosen[0] if chosen else lane.best
                shown = ", ".join(f"{key} {value:.4f}" for key, value in evaluation.metrics.items())
                log.info("Step %d, %s, %s: %s", self.position.step, lane.name, split, shown)

    def _save(self, names: dict[Lane, list[str]]) -> None:
        if not any(names.values()):
            return
        self.position.random = randomness.capture()
        self.position.seconds = time.monotonic() - self._began
        shared = self.position.states()
        if self.upstream_trainable:
            shared["Upstream"] = self.upstream.state_dict()
        lanes = self.living()
        for lane in lanes:
            lane.save(names[lane], {**shared, "Args": lane.args.to_dict(), "Config": lane.config, **lane.states()})
        # Not before all are written: who is killed in between finds every lane at the same step.
        for lane in lanes:
            lane.drop_old()
        self.position.random = None
