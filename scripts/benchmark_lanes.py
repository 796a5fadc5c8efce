"""What several interfaces in one run cost, against as many runs of one: seconds a step and peak memory.

    python scripts/benchmark_lanes.py [--lanes 1 2 4 6] [--batch 8] [--seconds 2.3] [--repeat 5] [--device cpu]

The upstream has the size of HuBERT Base (torchaudio's, random weights, 13 states of width 768), the task is intent
classification with SUPERB's head, the audio is noise. A step is one micro-batch forward and backward and one update, by
the runner's own loop. All times are medians of one process in which the settings take turns, after a warm-up; peak
memory is of a fresh process for each setting (of the GPU's allocator on CUDA).
"""

import argparse
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from s3prl_interfaces.bench.training import make_batch, make_trainer, make_upstream, step

INTERFACES = ("weighted_sum", "hconv", "grouped_weighted_sum", "concat", "cls_pooling", "last_layer")


def peak_memory(names: tuple[str, ...], batch: int, seconds: float, device_name: str) -> int:
    """Peak bytes of two steps; to be called in a process of its own."""
    device = torch.device(device_name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(names, make_upstream(device), device, folder)
        for _ in range(2):
            step(trainer, *make_batch(batch, seconds, device))
        for lane in trainer.lanes:
            lane.logger.close()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    parser.add_argument("--seconds", type=float, default=2.3, help="of each (Fluent Speech Commands' mean)")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    upstream = make_upstream(device)
    settings = [INTERFACES[:count] for count in options.lanes]
    solos = [(name,) for name in INTERFACES[: max(options.lanes)]]
    with tempfile.TemporaryDirectory() as folder:
        trainers = {
            names: make_trainer(names, upstream, device, str(Path(folder) / "-".join(names)))
            for names in dict.fromkeys([*settings, *solos])
        }
        seconds: dict[tuple[str, ...], list[float]] = {names: [] for names in trainers}
        for turn in range(options.repeat + 1):
            for names, trainer in trainers.items():
                batch = make_batch(options.batch, options.seconds, device)
                began = time.perf_counter()
                step(trainer, *batch)
                if turn:  # the first is for warming up
                    seconds[names].append(time.perf_counter() - began)
        for trainer in trainers.values():
            for lane in trainer.lanes:
                lane.logger.close()
    medians = {names: statistics.median(of_names) for names, of_names in seconds.items()}
    context = multiprocessing.get_context("spawn")
    say("lanes", "s a step", "alone, summed", "ratio", "to one", "peak GB", "")
    for names in settings:
        with context.Pool(1) as pool:
            peak = pool.apply(peak_memory, (names, options.batch, options.seconds, options.device))
        alone = sum(medians[name,] for name in names)
        say(
            str(len(names)),
            f"{medians[names]:.3f}",
            f"{alone:.3f}",
            f"{medians[names] / alone:.2f}",
            f"{medians[names] / medians[solos[0]]:.2f}",
            f"{peak / 1e9:.2f}",
            " ".join(names),
        )
    for (name,) in solos:
        say("alone", f"{medians[name,]:.3f}", "", "", f"{medians[name,] / medians[solos[0]]:.2f}", "", name)


def say(*cells: str) -> None:
    """Print a line of the table."""
    sys.stdout.write("  ".join(f"{cell:>13}" for cell in cells[:-1]) + f"  {cells[-1]}\n")


if __name__ == "__main__":
    main()
