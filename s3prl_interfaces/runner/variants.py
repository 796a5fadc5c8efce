"""The lanes that a command line asks for: interfaces x normalisation x seeds x learning rates."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.config import apply_overrides, interface_block, parse_interface, set_interface

NORMALIZE: Mapping[str | None, tuple[bool | None, ...]] = {
    None: (None,),
    "off": (False,),
    "on": (True,),
    "both": (False, True),
}
"""``--normalize``: what becomes of the interface's option ``normalize`` in each lane; None leaves it as it is."""


@dataclass(frozen=True)
class Variant:
    """One lane as a run of its own: one interface, one seed, one learning rate."""

    args: RunArguments
    config: dict[str, Any]
    name: str
    """Of its folder, such as ``hconv-kernel_size=3-seed=2-lr=0.001``."""


def variants(args: RunArguments, config: Mapping[str, Any]) -> list[Variant]:
    """Every lane of a run; where there is one, its folder is the run's.

    Raises:
        ConfigError: two lanes are the same, or an interface, a seed or a learning rate is none.
    """
    shared = {key: value for key, value in config.items() if key != "interfaces"}
    chosen = args.interface or config.get("interfaces") or [None]
    if not isinstance(chosen, list):
        raise ConfigError(f"`interfaces` must be a list of names or of mappings with a `name`, but is {chosen!r}.")
    found = [variant for one in chosen for variant in _vary(*settle(args, shared, one))]
    twice = [name for name, count in Counter(variant.name for variant in found).items() if count > 1]
    if twice:
        raise ConfigError(
            f"Two lanes are the same: {', '.join(twice)}. Name each interface, seed and learning rate once."
        )
    if len(found) == 1:
        return found
    return [
        replace(variant, args=replace(variant.args, expname=None, expdir=str(variant.args.folder / variant.name)))
        for variant in found
    ]


def settle(args: RunArguments, config: Mapping[str, Any], interface: object) -> tuple[RunArguments, dict[str, Any]]:
    """Let an interface and an upstream that were asked for win over the config, and ``-o`` over both.

    The config's ``upstream``, such as ``tiny_hubert`` in ``configs/mini/``, is what ``-u`` says where it is left out.

    Args:
        args: of the run; not changed.
        config: merged; not changed.
        interface: a name, a name with options, a mapping with a ``name``, or None for the config's own.

    Raises:
        ConfigError: the config's ``upstream`` is no name, or ``-o`` or the interface is none.
    """
    args, settled = copy.deepcopy(args), copy.deepcopy(dict(config))
    if interface is not None:
        name, options = parse_interface(interface)
        args.interface = [name]
        set_interface(settled, name, options)
    chosen = list(args.interface)
    configured = _take_upstream(settled)
    args.upstream = args.upstream or configured
    # After the choice: `--interface hconv -o config.interface.kernel_size=3`.
    apply_overrides(args.override, args, settled)
    args.upstream = _take_upstream(settled) or args.upstream  # `-o config.upstream=NAME`
    if args.interface and args.interface != chosen:  # `-o args.interface=NAME`
        set_interface(settled, *parse_interface(args.interface[0]))
    return args, settled


def _take_upstream(config: dict[str, Any]) -> str | None:
    """Take the upstream's name out of a config: args.yaml says which one it was."""
    upstream = config.pop("upstream", None)
    if upstream is not None and not isinstance(upstream, str):
        raise ConfigError(f"`upstream` must be a name, as `-u` takes it, but is {upstream!r}.")
    return upstream


def _vary(args: RunArguments, config: dict[str, Any]) -> Iterator[Variant]:
    if args.normalize not in NORMALIZE:
        raise ConfigError(f"`--normalize` must be off, on or both, but is {args.normalize!r}.")
    data_seed = args.order_seed if args.seeds else args.data_seed  # one for all, whatever `--seeds` says
    rates: list[float | None] = [*args.lr] or [None]
    for normalize in NORMALIZE[args.normalize]:
        for seed in args.seeds or [args.seed]:
            for lr in rates:
                lane = replace(args, seed=seed, data_seed=data_seed, seeds=[], lr=[], normalize=None)
                varied = _with_lr(_with_normalize(config, normalize), lr)
                told: list[tuple[str, Any]] = [("seed", seed)] if args.seeds else []
                told += [("lr", lr)] if args.lr else []
                yield Variant(lane, varied, _name(varied, told))


def _with_normalize(config: Mapping[str, Any], normalize: bool | None) -> dict[str, Any]:
    varied = copy.deepcopy(dict(config))
    if normalize is not None:
        name, options = interface_block(varied)
        kept = {key: value for key, value in options.items() if key != "normalize"}
        varied["interface"] = {"name": name or DEFAULT_INTERFACE, **kept, **({"normalize": True} if normalize else {})}
    return varied


def _with_lr(config: dict[str, Any], lr: float | None) -> dict[str, Any]:
    if lr is None:
        return config
    if not lr > 0:
        raise ConfigError(f"`--lr` must be above 0, but is {lr}.")
    if not isinstance(config.get("optimizer"), dict):
        raise ConfigError("`--lr` sets `optimizer.lr`, but the config has no `optimizer` block.")
    return {**config, "optimizer": {**config["optimizer"], "lr": lr}}


def _name(config: Mapping[str, Any], told: list[tuple[str, Any]]) -> str:
    """A folder's name that says what sets a lane apart."""
    name, options = interface_block(config)
    parts = [name or DEFAULT_INTERFACE]
    for key, value in [*sorted(options.items()), *told]:
        parts.append(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
    return re.sub(r"[^\w.,=+\[\]-]+", "_", "-".join(parts))
