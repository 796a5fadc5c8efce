"""The benchmark of the interfaces: forward, and forward with backward, from the list of hidden states."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from s3prl_interfaces.bench.measure import extra_memory, median_seconds, product_rate
from s3prl_interfaces.bench.references import Reference, make_reference
from s3prl_interfaces.errors import UserError
from s3prl_interfaces.interfaces import build_interface
from s3prl_interfaces.interfaces.cost import count_call

INTERFACES = ("weighted_sum", "hconv", "cls_pooling", "concat", "grouped_weighted_sum")


@dataclass(frozen=True)
class Size:
    """Of the hidden states: L layers of (B, T, D)."""

    layers: int
    batch: int
    frames: int
    dim: int

    def __str__(self) -> str:
        return f"L={self.layers} B={self.batch} T={self.frames} D={self.dim}"


SIZES = (Size(13, 8, 100, 768), Size(25, 8, 100, 1024))
"""Those of a Base and a Large model."""


@dataclass(frozen=True)
class Figures:
    """An interface beside its reference.

    Attributes:
        interface: Its name.
        against: What the reference is.
        size: Of the hidden states.
        forward: Seconds of the interface without gradients, in evaluation mode.
        forward_reference: The reference's.
        step: Seconds of forward and backward, from a gradient of the features to those of the parameters.
        step_reference: The reference's.
        memory: Bytes at the peak of forward and backward beyond the hidden states and the parameters.
        memory_reference: The reference's.
        forward_macs: Multiply-accumulate operations of the interface.
        step_macs: The same of forward and backward.
        rate: Multiply-accumulate operations a second of a large matrix product, timed in turns with these.
    """

    interface: str
    against: str
    size: Size
    forward: float
    forward_reference: float
    step: float
    step_reference: float
    memory: int | None
    memory_reference: int | None
    forward_macs: int
    step_macs: int
    rate: float


def benchmark(
    interfaces: Sequence[str], sizes: Sequence[Size], repeat: int, threads: int | None, device: torch.device
) -> list[Figures]:
    """Measure interfaces, one after the other.

    Args:
        interfaces: Names, out of :data:`INTERFACES`.
        sizes: Of the hidden states, which are float32 and need no gradient.
        repeat: Times of which the median is taken.
        threads: Of the CPU; PyTorch's own choice if not given.
        device: Where.

    Raises:
        UserError: There is nothing to compare an interface with, or it is not installed; a number is below 1.
    """
    for name in interfaces:
        if name not in INTERFACES:
            raise UserError(
                f"--interfaces: {name!r} has nothing to be compared with. Possible: {', '.join(INTERFACES)}."
            )
    if min(repeat, 1 if threads is None else threads, *(min(astuple(size)) for size in sizes)) < 1:
        raise UserError("--repeat, --threads and all numbers of --sizes must be 1 or more.")
    if threads is not None:
        torch.set_num_threads(threads)
    cases = tqdm(list(product(sizes, interfaces)), desc="benchmark", unit="interface", disable=None)
    return [_measure(name, size, repeat, device) for size, name in cases]


def _measure(name: str, size: Size, repeat: int, device: torch.device) -> Figures:
    ours, theirs = (_Case(name, size, device, reference) for reference in (False, True))
    large, macs = product_rate(device)
    forward, step = (
        median_seconds({"ours": our, "theirs": their, "product": large}, repeat, device)
        for our, their in ((ours.forward, theirs.forward), (ours.step, theirs.step))
    )
    memory, memory_reference = (
        extra_memory(prepared_step, name, size, str(device), reference, device=device) for reference in (False, True)
    )
    return Figures(
        interface=name,
        against=theirs.what,
        size=size,
        forward=forward["ours"],
        forward_reference=forward["theirs"],
        step=step["ours"],
        step_reference=step["theirs"],
        memory=memory,
        memory_reference=memory_reference,
        forward_macs=count_call(ours.forward),
        step_macs=count_call(ours.step),
        rate=2 * macs / (forward["product"] + step["product"]),
    )


class _Case:
    """An interface, or its reference, with hidden states and a gradient of its features."""

    def __init__(self, name: str, size: Size, device: torch.device, reference: bool) -> None:
        torch.manual_seed(0)
        interface = build_interface(name, num_layers=size.layers, feature_dim=size.dim).to(device)
        made = make_reference(interface) if reference else Reference(name, interface, interface.__call__)
        self.what, self.module, self.call = made.name, made.module, made.call
        self.states = [torch.randn(size.batch, size.frames, size.dim, device=device) for _ in range(size.layers)]
        self.gradient = torch.randn(size.batch, size.frames, interface.output_dim, device=device)

    def forward(self) -> Tensor:
        self.module.eval()
        with torch.no_grad():
            return self.call(self.states)

    def step(self) -> None:
        self.module.train()
        self.module.zero_grad()
        self.call(self.states).backward(self.gradient)


def prepared_step(name: str, size: Size, device: str, reference: bool) -> Callable[[], None]:
    """Forward and backward of an interface or its reference, after one on few frames: libraries are loaded then."""
    _Case(name, Size(size.layers, 1, 2, size.dim), torch.device(device), reference).step()
    return _Case(name, size, torch.device(device), reference).step


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures are of."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def write_json(figures: Sequence[Figures], device: torch.device, path: Path) -> None:
    """Write all of it to a file."""
    content = {"machine": machine(device), "figures": [asdict(one) for one in figures]}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def render(figures: Sequence[Figures], device: torch.device) -> str:
    """A Markdown table for each size, and what its figures are."""
    lines = [
        "{device}, {threads} threads, PyTorch {torch}, float32.".format(**machine(device)),
        "",
        "- Forward, and forward + backward: how many times as fast as what it is measured against, both from a list of "
        "frozen hidden states; medians of one process in which all take turns.",
        "- Bound: as fast as it would be if its products ran at the rate of a large one and all else took no time.",
        "- Peak memory: of forward and backward, beyond hidden states and parameters, as a share of the other's.",
        "- MACs: multiply-accumulate operations, and their rate as a share of that of a large matrix product.",
        "",
    ]
    for size in dict.fromkeys(one.size for one in figures):
        lines += [
            f"{size}",
            "",
            "| interface | against | forward | bound | forward + backward | bound | peak memory | MACs, forward | rate "
            "| MACs, both | rate |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_row(one) for one in figures if one.size == size]
        lines.append("")
    return "\n".join(lines)


def _row(one: Figures) -> str:
    memory = "not measured"
    if one.memory is not None and one.memory_reference is not None:
        memory = f"{one.memory / max(one.memory_reference, 1):.2f} ({one.memory / 1e6:.0f} MB)"
    cells = [
        f"`{one.interface}`",
        one.against,
        f"{one.forward_reference / one.forward:.2f}",
        f"{one.forward_reference * one.rate / one.forward_macs:.2f}",
        f"{one.step_reference / one.step:.2f}",
        f"{one.step_reference * one.rate / one.step_macs:.2f}",
        memory,
        f"{one.forward_macs / 1e9:.2f}G",
        f"{one.forward_macs / one.forward / one.rate:.0%}",
        f"{one.step_macs / 1e9:.2f}G",
        f"{one.step_macs / one.step / one.rate:.0%}",
    ]
    return f"| {' | '.join(cells)} |"
