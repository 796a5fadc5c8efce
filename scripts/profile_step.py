"""Where the time of a training step goes: data, upstream, interface, head, metrics, backward, update, logging.

    python scripts/profile_step.py [--tasks asr ic] [--interface weighted_sum] [--steps 12] [-u UPSTREAM]

A run of the task with SUPERB's settings on mini-SUPERB (what is missing is made), one micro-batch to a step. The
default upstream has the size of HuBERT Base, with random weights. Each part is timed by itself, without those in it;
on a GPU they wait for each other, so the sum is more than a step really takes. Medians over the steps after the first
two; what is logged every ``log_step`` steps is divided by as many.
"""

import argparse
import functools
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from s3prl_interfaces.mini_superb import make_mini_superb
from s3prl_interfaces.runner.accumulation import MicroBatch
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.batches import Batches, readable, to_device
from s3prl_interfaces.runner.experiment import build
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.plan import make_plans
from s3prl_interfaces.runner.training import Position, Trainer

CORPORA = {"asr": "librispeech", "ic": "fluent_speech_commands"}
METRICS = ("_decode", "_transcribe", "_greedy_texts", "error_rate")
"""Functions that only metrics need, by their names in the tasks' modules and classes."""
PARTS = ("data", "upstream", "interface", "head", "metrics", "backward", "update", "logging")
_WARM_UP = 2


class Clock:
    """Time by part; a part's time is without that of the parts within it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._inside: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done inside as ``name``."""
        self._wait()
        began = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            self._wait()
            took = time.perf_counter() - began
            self.seconds[name] += took - self._inside.pop()
            if self._inside:
                self._inside[-1] += took

    def timed(self, owner: Any, attribute: str, name: str) -> None:
        """Count every call of a function as ``name``."""
        function: Callable[..., Any] = getattr(owner, attribute)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        setattr(owner, attribute, call)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def profile(task: str, upstream: str, interface: str, steps: int, device: str, folder: Path) -> dict[str, float]:
    """Median seconds of each part of a step."""
    configs = [f"configs/{task}.yaml", f"configs/mini/{task}.yaml"]
    arguments = RunArguments(
        mode="train",
        upstream=upstream,
        downstream=task,
        config=configs,
        interface=[interface],
        expdir=str(folder / task),
        device=device,
    )
    experiment = build(make_plans(arguments))
    (lane,) = experiment.lanes
    lane.folder.mkdir()
    lane.logger = MetricLogger(str(lane.folder))
    lane.start_training(None)
    clock = Clock(experiment.device)
    clock.timed(experiment.upstream, "forward", "upstream")
    clock.timed(lane.featurizer, "forward", "interface")
    clock.timed(lane.head, "forward", "head")
    clock.timed(lane, "update", "update")
    clock.timed(lane, "log_training", "logging")
    backward = torch.Tensor.backward
    clock.timed(torch.Tensor, "backward", "backward")
    module = sys.modules[type(lane.head).__module__]
    for name in METRICS:
        for owner in (lane.head, module):
            if hasattr(owner, name):
                clock.timed(owner, name, "metrics")
    trainer = Trainer(experiment.upstream, [lane], False, 0, experiment.runner, experiment.device, Position())
    for part in lane.modules.values():
        part.train()
    found: list[dict[str, float]] = []
    try:
        batches = _endless(trainer)
        for _ in range(steps + _WARM_UP):
            clock.seconds.clear()
            with clock.part("data"):
                wavs, *others = next(batches)
                wavs = to_device(wavs, experiment.device)
            trainer.gradients.add(MicroBatch(wavs, others, 0, len(wavs)), 1)
            lane.update(1)
            trainer.gradients.begin()
            found.append(dict(clock.seconds))
        clock.seconds.clear()
        lane.log_training(experiment.runner.train_dataloader, 1, 1)
    finally:
        torch.Tensor.backward = backward  # type: ignore[method-assign]
        lane.logger.close()
    logged = {name: seconds / (steps + _WARM_UP) for name, seconds in clock.seconds.items()}
    return {
        name: statistics.median(step.get(name, 0.0) for step in found[_WARM_UP:]) + logged.get(name, 0.0)
        for name in PARTS
    }


def _endless(trainer: Trainer) -> Iterator[tuple[Any, ...]]:
    epoch = 0
    while True:
        yield from readable(Batches(trainer.lanes[0].head, trainer.runner.train_dataloader, epoch))
        epoch += 1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--interface", default="weighted_sum")
    parser.add_argument("-u", "--upstream", default="s3prl_interfaces.bench.training:hubert_base")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args()
    make_mini_superb(Path("mini_superb_data"), corpora=[CORPORA[task] for task in options.tasks])
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            parts = profile(task, options.upstream, options.interface, options.steps, options.device, Path(folder))
            total = sum(parts.values())
            sys.stdout.write(f"{task}: {total:.3f} s a step\n")
            for name, seconds in parts.items():
                sys.stdout.write(f"  {name:12}{1000 * seconds:10.1f} ms {seconds / total:8.1%}\n")


if __name__ == "__main__":
    main()
