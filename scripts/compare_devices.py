"""Train two lanes on a GPU and on the CPU from the same weights and batches, and say how far apart they end.

The upstream has the size of HuBERT Base with random weights, the task is intent classification of noise. Losses and
weights agree to rounding, which grows with every update; times are of whole updates after the first one.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from s3prl_interfaces.bench.training import make_batch, make_trainer, make_upstream, step
from s3prl_interfaces.runner.device import choose_device

INTERFACES = ("weighted_sum", "hconv")
TOLERANCE = 1e-3
"""Of losses and weights, relative; float32 on the CPU and on a GPU differ by some 1e-5 after a few updates."""


@dataclass(frozen=True)
class Trained:
    """What a device made of the batches."""

    losses: dict[str, list[float]]
    """Of each update, by lane."""
    weights: dict[str, Tensor]
    """All that was trained, (parameters,), by lane."""
    seconds: float
    """An update."""


def train(device: torch.device, updates: int, batch: int, folder: Path) -> Trained:
    """Train both lanes for some updates, each of one batch."""
    cpu = torch.device("cpu")
    trainer = make_trainer(INTERFACES, make_upstream(cpu).to(device), device, str(folder))
    losses: dict[str, list[float]] = {lane.name: [] for lane in trainer.lanes}
    times = []
    for number in range(updates):
        torch.manual_seed(number)
        wavs, others = make_batch(batch, 1.0 + 0.2 * number, cpu)  # drawn on the CPU: the same on every device
        began = time.perf_counter()
        found = step(trainer, [wav.to(device) for wav in wavs], others)
        times.append(time.perf_counter() - began)
        for loss, of_lane in zip(found, losses.values(), strict=True):
            of_lane.append(loss.item())
    weights = {
        lane.name: torch.cat([weight.detach().flatten().cpu() for weight in lane.trained]) for lane in trainer.lanes
    }
    for lane in trainer.lanes:
        lane.logger.close()
    return Trained(losses, weights, sum(times[1:]) / max(1, len(times) - 1))


def main() -> None:
    """Compare, print a table, and fail where the two are too far apart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the script")
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        one = train(torch.device("cpu"), options.updates, options.batch, Path(name) / "cpu")
        other = train(choose_device(options.device), options.updates, options.batch, Path(name) / "other")
    worst = 0.0
    for lane, losses in one.losses.items():
        of_loss = max(abs(a - b) / abs(a) for a, b in zip(losses, other.losses[lane], strict=True))
        of_weights = ((one.weights[lane] - other.weights[lane]).norm() / one.weights[lane].norm()).item()
        sys.stdout.write(f"{lane:16} losses differ by {of_loss:.1e}, weights by {of_weights:.1e}\n")
        worst = max(worst, of_loss, of_weights)
    sys.stdout.write(f"an update: cpu {one.seconds:.3f} s, {options.device} {other.seconds:.3f} s\n")
    if not worst <= TOLERANCE:
        sys.exit(f"{options.device} and the CPU do not agree to {TOLERANCE:g}")


if __name__ == "__main__":
    main()
