"""Time and peak memory of a call."""

import gc
import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

_WARM_UP = 2


def median_seconds(calls: Mapping[str, Callable[[], Any]], repeat: int, device: torch.device) -> dict[str, float]:
    """Let calls take turns, and give the median of each one's times: what slows a machine down slows all of them.

    Args:
        calls: What to time, by name.
        repeat: Times that count, after a warm-up of two.
        device: Waited for, if it is a GPU.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeat + _WARM_UP):
        for name, call in calls.items():
            _wait(device)
            began = time.perf_counter()
            call()
            _wait(device)
            if turn >= _WARM_UP:
                times[name].append(time.perf_counter() - began)
    return {name: statistics.median(of_name) for name, of_name in times.items()}


def product_rate(device: torch.device) -> tuple[Callable[[], Any], int]:
    """A large float32 matrix product, and the multiply-accumulate operations in it."""
    size = 8192 if device.type == "cuda" else 2048
    one, other = torch.randn(2, size, size, device=device)
    return lambda: one @ other, size**3


def extra_memory(prepare: Callable[..., Callable[[], Any]], *arguments: Any, device: torch.device) -> int | None:
    """Bytes at the peak of a call beyond those before it; None where that cannot be seen.

    Args:
        prepare: Makes the call; run in a process of its own on a CPU, so a function of a module.
        arguments: Given to ``prepare``.
        device: A GPU's allocator is asked; of a CPU's memory Linux tells the peak.
    """
    if device.type == "cuda":
        call = prepare(*arguments)
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    if not Path("/proc/self/clear_refs").exists():
        return None
    # What is freed goes back to the system at once, and is not there already when it is wanted next.
    kept = os.environ.get(_THRESHOLD)
    os.environ[_THRESHOLD] = "65536"
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_resident_peak, (torch.get_num_threads(), prepare, *arguments))
    finally:
        del os.environ[_THRESHOLD]
        if kept is not None:
            os.environ[_THRESHOLD] = kept


_THRESHOLD = "MALLOC_MMAP_THRESHOLD_"


def _resident_peak(threads: int, prepare: Callable[..., Callable[[], Any]], *arguments: Any) -> int:
    torch.set_num_threads(threads)
    call = prepare(*arguments)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = _kilobytes("VmHWM")
    call()
    return 1024 * (_kilobytes("VmHWM") - before)


def _kilobytes(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {key}")
    return int(found[1])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
