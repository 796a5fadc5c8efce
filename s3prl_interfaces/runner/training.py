"""The training loop: S3PRL's order of events (``s3prl/downstream/runner.py``) over a list of lanes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.runner import distributed, randomness
from s3prl_interfaces.runner.accumulation import Accumulation, MicroBatch
from s3prl_interfaces.runner.batches import Batches, to_device
from s3prl_interfaces.runner.config import RunnerConfig
from s3prl_interfaces.runner.evaluation import evaluate
from s3prl_interfaces.runner.interruption import Stopped, stop_if_requested
from s3prl_interfaces.runner.lane import Lane, living
from s3prl_interfaces.runner.progress import progress_bar

log = logging.getLogger(__name__)


@dataclass
class Position:
    """Where training stands. Everything that a continued run needs to be the run that was never stopped."""

    step: int = 0
    """Updates done."""
    epoch: int = 0
    batches: int = 0
    """Micro-batches of this epoch that are done, in all processes together."""
    length: int | None = None
    """Micro-batches of this epoch, once that is known."""
    epoch_random: dict[str, Any] | None = None
    """Random states when this epoch's loader was made: from them it deals the same batches again."""
    random: dict[str, Any] | None = None
    """Random states after the last update: of the data and the upstream. Each lane has its own beside these."""
    seconds: float = 0.0
    """Time spent training, evaluations included."""
    unevaluated: list[str] = field(default_factory=list)
    """Splits that are still to be evaluated at this step: the run was stopped in the middle of that."""
    accumulated: int = 0
    """Micro-batches since the last update; 0 whenever a checkpoint is written, so it is not part of one."""

    def states(self) -> dict[str, Any]:
        """The keys of a checkpoint; ``Step``, ``Epoch`` and ``WorldSize`` are S3PRL's. Every process must ask."""
        ended = self.batches == self.length  # then nothing of it needs to be read again
        states = {
            "Step": self.step,
            "Epoch": self.epoch + ended,
            "Batches": 0 if ended else self.batches,
            "EpochRandom": None if ended else self.epoch_random,
            "DataRandom": distributed.gathered(self.random),
            "Seconds": self.seconds,
            "Unevaluated": self.unevaluated,
        }
        return states | ({"WorldSize": distributed.world_size()} if distributed.world_size() > 1 else {})

    @classmethod
    def from_states(cls, states: dict[str, Any]) -> Position:
        """Read a checkpoint's; one of S3PRL's has no place in the epoch, which then begins again, as there."""
        return cls(
            step=states["Step"],
            epoch=states.get("Epoch", 0),
            batches=states.get("Batches", 0),
            epoch_random=states.get("EpochRandom"),
            random=distributed.own(states.get("DataRandom")),
            seconds=states.get("Seconds", 0.0),
            unevaluated=states.get("Unevaluated", []),
        )


class Trainer:
    """Trains lanes over one upstream.

    Args:
        upstream: in eval mode and without gradients, unless ``upstream_trainable``.
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
        self.gradients = Accumulation(upstream, lanes, runner, device, upstream_trainable)
        # Of which step the checkpoint is that says all. One that was written in the middle of evaluations does not.
        self._saved = position.step - bool(position.unevaluated)
        self._began = time.monotonic() - position.seconds
        self._shown = -math.inf  # when the loss was

    def train(self) -> None:
        """Train until ``runner.total_steps`` updates are done.

        Raises:
            Stopped: a signal asked for it; there is a checkpoint of the last update then.
            UserError: one utterance does not fit into the GPU's memory, or no lane is left.
            DataError: an utterance cannot be read, or, where such are skipped, none can.
        """
        self.upstream.train(self.upstream_trainable)
        for lane in self.lanes:
            for module in lane.modules.values():
                module.train()
        try:
            with progress_bar(total=self.runner.total_steps, initial=self.position.step, desc="train") as progress:
                self._finish_step()  # what the run that is continued left undone
                while self.position.step < self.runner.total_steps:
                    self._epoch(progress)
        except Stopped:
            if self.position.step > self._saved:
                self._save({lane: [self._last_name] for lane in self.lanes})
            raise

    @property
    def _last_name(self) -> str:
        return f"states-{self.position.step}.ckpt"

    def _epoch(self, progress: tqdm) -> None:
        position = self.position
        if position.epoch_random is None:
            if position.random is not None:
                randomness.restore(position.random)
                position.random = None
            position.epoch_random = distributed.from_first(randomness.capture())
        # The order of the batches is everybody's; what else is drawn, as in an upstream that is trained, is one's own.
        own = position.random if distributed.is_first() else position.random or randomness.capture()
        randomness.restore(position.epoch_random)
        batches = Batches(
            self.lanes[0].head,
            self.runner.train_dataloader,
            position.epoch,
            done=position.batches,
            random=own,
            shared=True,
        )
        position.random = None
        position.length = len(batches)
        read = position.batches > 0
        for wavs, *others in self._in_step(batches):
            utterances = distributed.total(len(wavs))
            number = position.batches + distributed.rank()
            position.batches = min(position.batches + distributed.world_size(), len(batches))
            if not utterances:  # could be read
                continue
            read = True
            batch = MicroBatch(to_device(wavs, self.device), others, number, utterances)
            self.gradients.add(batch, position.step + 1)
            position.accumulated = (position.accumulated + 1) % self.runner.gradient_accumulate_steps
            if position.accumulated:
                continue
            self._update(len(batches))
            if time.monotonic() - self._shown > 1:  # not at every step: a GPU waits wherever a number is read
                progress.set_postfix(
                    loss=" ".join(f"{loss.item():.4f}" for loss in batch.losses.values()), refresh=False
                )
                self._shown = time.monotonic()
            progress.update()
            stop_if_requested(together=True)
            if position.step == self.runner.total_steps:
                return
        if not read:  # else the next epoch would look for one, and the next
            raise DataError(f"{self.runner.train_dataloader}: no utterance could be read.")
        position.epoch += 1
        position.batches = 0
        position.length = position.epoch_random = None

    def _in_step(self, batches: Batches) -> Iterator[tuple[Any, ...]]:
        """As many batches in every process: at the end of an epoch some have none left, and get an empty one."""
        rounds = -(-(len(batches) - self.position.batches) // distributed.world_size())
        for _, batch in zip_longest(range(rounds), batches, fillvalue=((),)):
            yield batch

    def _update(self, batches: int) -> None:
        position, runner = self.position, self.runner
        position.step += 1
        step = position.step
        for lane in living(self.lanes):
            with lane.guard(step), lane.stream.use():
                norm = lane.update(step)
                if norm is not None:
                    suspects = self.gradients.suspects(lane)
                    log.warning(
                        "Step %d, %s: the gradient norm is %s; this update is skipped. %s.",
                        step,
                        lane.name,
                        norm,
                        suspects,
                    )
                if step % runner.log_step == 0:
                    lane.log_training(runner.train_dataloader, step, batches)
        self.gradients.begin()
        if step % runner.eval_step == 0 or step == runner.total_steps:
            position.unevaluated = list(runner.eval_dataloaders)
        self._finish_step()

    def _finish_step(self) -> None:
        """The evaluations and checkpoints that are due at this step."""
        step, runner = self.position.step, self.runner
        while self.position.unevaluated:
            stop_if_requested(together=True)
            self._evaluate(self.position.unevaluated[0])
            self.position.unevaluated = self.position.unevaluated[1:]
        if step > self._saved and (step % runner.save_step == 0 or step == runner.total_steps):
            for lane in self.lanes:
                lane.wanted.append(self._last_name)
        names = {lane: lane.wanted for lane in self.lanes}
        if any(names.values()):
            for lane in self.lanes:
                lane.wanted = []
            self._save(names)

    def _evaluate(self, split: str) -> None:
        lanes = living(self.lanes)
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
            lane.wanted += evaluation.checkpoints
            # A best on test is for looking at, never for choosing; unless the task says so (SUPERB's SV).
            selects_on_test = getattr(lane.head, "selects_on", None) == "test"
            chosen = [name for name in evaluation.checkpoints if name.startswith("test") == selects_on_test]
            lane.best = chosen[0] if chosen else lane.best
            shown = ", ".join(f"{key} {value:.4f}" for key, value in evaluation.metrics.items())
            log.info("Step %d, %s, %s: %s", self.position.step, lane.name, split, shown)

    def _save(self, names: dict[Lane, list[str]]) -> None:
        waiting = self.position.random  # of a run that was continued and has not drawn anything yet
        self.position.random = waiting or randomness.capture()
        self.position.seconds = time.monotonic() - self._began
        shared = self.position.states()
        if self.upstream_trainable:
            shared["Upstream"] = self.upstream.state_dict()
        lanes = living(self.lanes)
        for lane in lanes:
            lane.save(names[lane], {**shared, "Args": lane.args.to_dict(), "Config": lane.config, **lane.states()})
        # Not before all are written: who is killed in between finds every lane at the same step.
        for lane in lanes:
            lane.drop_old()
        self.position.random = waiting
        if any(self._last_name in of_lane for of_lane in names.values()):
            self._saved = self.position.step
