"""``s3prl-interfaces validate``: what a run will need, from a few batches of it. Nothing is written."""

from __future__ import annotations

import io
import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import torch

from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.accumulation import Accumulation, MicroBatch
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.batches import Batches, readable, run_upstream, to_device
from s3prl_interfaces.runner.experiment import Experiment, build, grouped, is_done, prepare_training
from s3prl_interfaces.runner.fitting import fit_interfaces
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.outcome import peak_memory, scored_splits, trained_parameters
from s3prl_interfaces.runner.plan import Plan, make_plans

log = logging.getLogger(__name__)

LOOKS = 4
"""Updates, and batches of each split that is evaluated, at most."""
PATIENCE = 20.0
"""Seconds after which no further one is looked at."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What lanes that share an upstream will need. Times are in seconds, sizes in bytes."""

    task: str
    upstream: str
    upstream_parameters: int
    layers: int
    lanes: Mapping[str, tuple[int, int]]
    """Trained parameters of the interface and of the head, by lane."""
    updates: int
    """That are left to do."""
    batches: int
    """Of an epoch."""
    per_update: int
    """Batches to an update."""
    splits: tuple[str, ...]
    """That are evaluated during training."""
    evaluations: int
    """Of those splits, the final one of all splits not counted."""
    update: float
    """Time of one."""
    evaluation: float
    """Time of one of ``splits``."""
    before_and_after: float
    """Time of fitting interfaces, and of the final scores."""
    memory: int
    """The most there was, of the GPU or else of this process; loader workers have their own."""
    disk: int
    """Of the checkpoints that will be there at the end."""
    free: int
    """Where they will be."""
    folder: Path

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.updates * self.update + self.evaluations * self.evaluation + self.before_and_after


def validate(args: RunArguments) -> list[Needs]:
    """Build what ``run`` would, and do its first updates and a batch of its evaluations.

    A feature cache is neither read nor filled: the times are those without.

    Returns:
        One for each group of lanes that go side by side; none where the run is finished.

    Raises:
        UserError: what the run would have raised, at its start or in its first update.
    """
    if args.all_folds:
        raise ConfigError("`validate` looks at one fold: leave `--all-folds` out, and expect as much of every fold.")
    plans = make_plans(args)
    if plans[0].args.mode != "train":
        raise ConfigError(f"`validate` is for `-m train`, not for `-m {plans[0].args.mode}`.")
    if distributed.world_size() > 1:
        raise ConfigError("`validate` is for one process: start it without torchrun.")
    groups = grouped([plan for plan in plans if not is_done(plan)])
    return [_needs(build([_without_cache(plan) for plan in group])) for group in groups]


def render(needs: Needs) -> str:
    """A few lines for people."""
    epochs = needs.updates * needs.per_update / needs.batches
    batches = f"{needs.per_update} batches" if needs.per_update > 1 else "a batch"
    splits = f"of {', '.join(needs.splits)}" if needs.splits else ""
    lines = [
        f"{needs.task} on {needs.upstream}: {needs.layers} hidden states, {needs.upstream_parameters:,} parameters",
        *(f"  {name}: {interface:,} parameters, head {head:,}" for name, (interface, head) in needs.lanes.items()),
        f"Steps   {needs.updates:,} updates of {batches}: {epochs:.1f} epochs of {needs.batches:,}; "
        f"{needs.evaluations:,} evaluations {splits}",
        f"Time    about {_time(needs.seconds)}: {_time(needs.update)} an update, {_time(needs.evaluation)} an "
        f"evaluation, {_time(needs.before_and_after)} before and after",
        f"Memory  {_size(needs.memory)} at the peak so far, without the loaders' workers",
        f"Disk    {_size(needs.disk)} of checkpoints in {needs.folder}; {_size(needs.free)} are free",
    ]
    return "\n".join(lines) + "\n"


def _without_cache(plan: Plan) -> Plan:
    runner = {key: value for key, value in plan.config["runner"].items() if key != "feature_cache"}
    return replace(plan, config={**plan.config, "runner": runner})


def _needs(experiment: Experiment) -> Needs:
    runner, lanes, args = experiment.runner, experiment.lanes, experiment.args
    done = prepare_training(experiment).step
    last = runner.total_steps
    saves = last // runner.save_step - done // runner.save_step + bool(last % runner.save_step)
    batches = len(Batches(lanes[0].head, runner.train_dataloader))

    began = time.monotonic()
    fit_interfaces(experiment.upstream, [lane for lane in lanes if lane.start is None], experiment.device, batches=1)
    fitting = (time.monotonic() - began) * batches
    update = _pace(_updates(experiment, done))
    whole = {split: _whole(experiment, split) for split in {*runner.eval_dataloaders, *scored_splits(lanes[0], runner)}}

    folder = lanes[0].folder if len(lanes) == 1 else lanes[0].folder.parent
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return Needs(
        task=args.downstream or "",
        upstream=args.upstream or "",
        upstream_parameters=sum(parameter.numel() for parameter in experiment.upstream.parameters()),
        layers=lanes[0].featurizer.layer_num,
        lanes={
            lane.folder.name if len(lanes) > 1 else lane.interface_name: (
                trained_parameters([lane.featurizer]),
                trained_parameters([lane.head]),
            )
            for lane in lanes
        },
        updates=last - done,
        batches=batches,
        per_update=runner.gradient_accumulate_steps,
        splits=tuple(runner.eval_dataloaders),
        evaluations=last // runner.eval_step - done // runner.eval_step + bool(last % runner.eval_step),
        update=update,
        evaluation=sum(whole[split] for split in runner.eval_dataloaders) * runner.evaluate_ratio,
        before_and_after=fitting + sum(whole[split] for split in scored_splits(lanes[0], runner)),
        memory=peak_memory(experiment.device),
        # The best one is kept beside the last ones.
        disk=sum(_checkpoint_size(experiment, lane) for lane in lanes) * (min(saves, runner.max_keep) + 1),
        free=shutil.disk_usage(there).free,
        folder=folder,
    )


def _updates(experiment: Experiment, done: int) -> Iterator[None]:
    """Train, as :class:`~s3prl_interfaces.runner.training.Trainer` does; comes back after every update."""
    runner, lanes, device = experiment.runner, experiment.lanes, experiment.device
    trainable = experiment.args.upstream_trainable
    experiment.upstream.train(trainable)
    for lane in lanes:
        for module in lane.modules.values():
            module.train()
    gradients = Accumulation(experiment.upstream, lanes, runner, device, trainable)
    accumulated = 0
    for epoch in count():
        read = False
        for number, (wavs, *others) in enumerate(readable(Batches(lanes[0].head, runner.train_dataloader, epoch))):
            read = True
            gradients.add(MicroBatch(to_device(wavs, device), others, number, len(wavs)), done + 1)
            accumulated += 1
            if accumulated % runner.gradient_accumulate_steps == 0:
                for lane in lanes:
                    with lane.stream.use():
                        norm = lane.update(done + 1)
                    if norm is not None:
                        told = "%s: the gradient norm of an update is %s. %s."
                        log.warning(told, lane.interface_name, norm, gradients.suspects(lane))
                gradients.begin()
                yield
        if not read:
            raise DataError(f"{runner.train_dataloader}: no utterance could be read.")


def _whole(experiment: Experiment, split: str) -> float:
    """Seconds that a pass over a split will take."""
    return _pace(_evaluated(experiment, split)) * len(Batches(experiment.lanes[0].head, split))


def _evaluated(experiment: Experiment, split: str) -> Iterator[None]:
    """Evaluate; comes back after every batch."""
    for module in (experiment.upstream, *(module for lane in experiment.lanes for module in lane.modules.values())):
        module.eval()
    records: dict[Lane, Any] = {lane: defaultdict(list) for lane in experiment.lanes}
    for number, (wavs, *others) in enumerate(readable(Batches(experiment.lanes[0].head, split))):
        wavs = to_device(wavs, experiment.device)
        with torch.no_grad():
            output = run_upstream(experiment.upstream, wavs)
            for lane, of_lane in records.items():
                with lane.stream.use():
                    lane.loss(split, wavs, output, others, records=of_lane, batch_id=number)
        yield


def _pace(work: Iterator[None]) -> float:
    """Median seconds of a piece of work; of several, the first one only makes ready what the others find."""
    times: list[float] = []
    before = time.monotonic()
    for _ in islice(work, LOOKS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.monotonic()
        times.append(now - before)
        before = now
        if sum(times) > PATIENCE:
            break
    return median(times[1:] or times or [0.0])


class _Counter(io.RawIOBase):
    """A file of which only the size is kept."""

    size = 0

    def write(self, content: Any) -> int:
        self.size += len(content)
        return len(content)


def _checkpoint_size(experiment: Experiment, lane: Lane) -> int:
    states = {**lane.states(), "Args": lane.args.to_dict(), "Config": lane.config}
    if experiment.args.upstream_trainable:
        states["Upstream"] = experiment.upstream.state_dict()
    file = _Counter()
    torch.save(states, file)  # type: ignore[arg-type]  # which needs no more than `write`
    return file.size


def _time(seconds: float) -> str:
    for size, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{round(seconds)} s"


def _size(count: int) -> str:
    for size, name in ((10**9, "GB"), (10**6, "MB")):
        if count >= size:
            return f"{count / size:.3g} {name}"
    return f"{count / 1000:.3g} kB"
