"""What keeping hidden states saves: seconds an epoch of intent classification, without a cache, and with one.

    python scripts/benchmark_feature_cache.py [--interface weighted_sum] [--utterances 32] [--batch 8] [--repeat 3]

The upstream has the size of HuBERT Base (torchaudio's, random weights), the head is SUPERB's, the audio is noise of 1.5
to 3.1 s that is in memory. An epoch is every utterance once, forward, backward and update, by the runner's own loop.
Times are medians of one process in which the settings take turns; every first epoch fills an empty folder.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from s3prl_interfaces.bench.training import make_batch, make_trainer, make_upstream, step
from s3prl_interfaces.feature_cache import CachedUpstream, Store
from s3prl_interfaces.runner.training import Trainer

DTYPES = ("float32", "bfloat16", "float16")
Batch = tuple[list[Tensor], list[object]]


def epoch(trainer: Trainer, batches: list[Batch]) -> float:
    """Seconds of one."""
    began = time.perf_counter()
    for batch in batches:
        step(trainer, *batch)
    return time.perf_counter() - began


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interface", default="weighted_sum")
    parser.add_argument("--utterances", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8, help="utterances")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    upstream = make_upstream(device)
    count = max(1, options.utterances // options.batch)
    lengths = [1.5 + 1.6 * index / max(1, count - 1) for index in range(count)]  # 2.3 s in the mean, as the corpus
    batches = [make_batch(options.batch, seconds, device) for seconds in lengths]
    times: dict[str, list[float]] = {}
    sizes = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trainer = make_trainer((options.interface,), upstream, device, str(folder / "run"))
        step(trainer, *batches[0])  # for warming up
        for turn in range(options.repeat):
            trainer.gradients.upstream = upstream
            times.setdefault("without a cache", []).append(epoch(trainer, batches))
            for dtype in DTYPES:
                place = folder / f"{dtype}-{turn}"
                store = Store(place, place)
                trainer.gradients.upstream = CachedUpstream(
                    upstream, "hidden_states", None, getattr(torch, dtype), store
                )
                times.setdefault(f"{dtype}, first epoch", []).append(epoch(trainer, batches))
                store.flush()
                times.setdefault(f"{dtype}, later", []).append(epoch(trainer, batches))
                sizes[dtype] = sum(shard.stat().st_size for shard in place.iterdir())
        for lane in trainer.lanes:
            lane.logger.close()
    without = statistics.median(times["without a cache"])
    say("", "s an epoch", "times as fast", "MB")
    for setting, of_setting in times.items():
        seconds = statistics.median(of_setting)
        size = sizes.get(setting.split(",")[0])
        say(setting, f"{seconds:.2f}", f"{without / seconds:.2f}", "" if size is None else f"{size / 1e6:.0f}")


def say(*cells: str) -> None:
    """Print a line of the table."""
    sys.stdout.write(f"{cells[0]:24}" + "".join(f"{cell:>16}" for cell in cells[1:]) + "\n")


if __name__ == "__main__":
    main()
