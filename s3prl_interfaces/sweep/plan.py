"""From sweep.yaml to its cells, checked."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from downstream_tasks.registry import canonical_name, default_config, is_ours, load_expert
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.config import check_blocks, load_config
from s3prl_interfaces.runner.variants import settle, variants
from s3prl_interfaces.sweep.cells import Cell, Group, Sweep, within
from s3prl_interfaces.sweep.check import check_interface, check_upstream
from s3prl_interfaces.sweep.naming import distinct, entry_name, values_name
from s3prl_interfaces.sweep.spec import LEARNING_RATE, SweepSpec, UpstreamEntry, assignment, interface_text, read_spec
from s3prl_interfaces.sweep.state import differences, stored

log = logging.getLogger(__name__)

IDENTITY = (
    "upstream",
    "upstream_ckpt",
    "upstream_model_config",
    "upstream_trainable",
    "upstream_feature_selection",
    "upstream_layer_selection",
    "upstream_feature_normalize",
    "upstream_model_name",
    "upstream_revision",
    "upstream_unpadded",
    "hub",
    "downstream_variant",
    "seed",
    "data_seed",
)
"""Arguments without which a run is another run."""


MOST_SAID = 5
"""Keys that one message tells of."""


def load_sweep(path: Path) -> Sweep:
    """Read a sweep and check every cell as far as that is cheap: configs, names of tasks, interfaces and upstreams.

    Raises:
        ConfigError: something is wrong with any of its cells, or a folder holds another run.
    """
    spec = read_spec(path)
    upstreams = distinct([(entry, _upstream_name(entry, spec)) for entry in spec.upstream_entries])
    shared = {key: values for key, values in spec.values.items() if key != LEARNING_RATE}
    choices = distinct([(values, values_name(values)) for values in _product(shared)])
    names = [entry.name for entry, _ in upstreams]
    groups = []
    for (entry, upstream), task, (values, chosen) in product(upstreams, spec.tasks, choices):
        board = ", ".join(filter(None, [upstream if names.count(entry.name) > 1 else "", chosen]))
        try:
            groups += _groups(spec, entry, task, values, [part for part in (upstream, task, chosen) if part], board)
        except ConfigError as error:
            told = ", ".join(filter(None, [entry.name, task, chosen]))
            raise ConfigError(f"{path} ({told}): {error}") from error
    sweep = Sweep(path, spec, tuple(groups))
    _compare(sweep)
    return sweep


def _product(values: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _upstream_name(entry: UpstreamEntry, spec: SweepSpec) -> str:
    """Of its folder. One that the configs name differs between tasks, perhaps: it has no folder of its own."""
    return entry_name(entry.name, entry.flags) if entry.name is not None else ""


def _groups(
    spec: SweepSpec, entry: UpstreamEntry, task: str, values: Mapping[str, Any], place: Sequence[str], board: str
) -> list[Group]:
    """The groups of one upstream, task and choice of values: one, or one a fold."""
    load_expert(task)  # an unknown name is said before its config is looked for
    known = canonical_name(task, {})
    flags = {**spec.flags, **entry.flags}
    assignments = [flags.pop("override", None) or ""]
    for key, value in values.items():
        root, _, name = key.partition(".")
        if root == "args":
            flags[name] = value
        else:
            assignments.append(assignment(key, value, f"values.{key}"))
    args = RunArguments(
        mode="train",
        downstream=task,
        upstream=entry.name,
        config=[file.replace("{task}", known) for file in spec.config],
        override=",,".join(filter(None, assignments)) or None,
        expname=spec.name,
        expdir=spec.dir,
        auto_resume=True,
        **flags,
    )
    args = within(args, *place)
    config = load_config(args.config or [default_config(task)])
    own = config.pop("interfaces", None) or []
    if not isinstance(own, list):
        raise ConfigError(f"`interfaces` must be a list of names or of mappings with a `name`, but is {own!r}.")
    settled, merged = settle(args, config, None)
    check_upstream(settled)
    title = ", ".join([str(settled.upstream), task, *place[(2 if entry.name is not None else 1) :]])
    groups = []
    for fold, key in _folds(task, merged, args):
        one = args
        if fold:
            override = ",,".join(filter(None, [args.override, f"config.{key}={fold}"]))
            one = replace(within(args, fold), override=override)
        cells = _cells(spec, one, config, [interface_text(entry) for entry in own])
        groups.append(Group(f"{title}, {fold}" if fold else title, board, one, cells))
    return groups


def _folds(task: str, config: Mapping[str, Any], args: RunArguments) -> Iterable[tuple[str, str]]:
    """Each fold of a cross-validated task with the config key that chooses it; one without where nothing is to choose.

    Not by ``--all-folds``, which trains them one after another in one process: as runs of their own they can be jobs
    of their own, and one that fails does not stop the others.
    """
    expert: Any = load_expert(task)
    folds: Sequence[str] = getattr(expert, "folds", ())
    if not folds or args.downstream_variant is not None:
        return [("", "")]
    chosen: Any = config
    for part in expert.fold_key.split("."):
        chosen = chosen.get(part) if isinstance(chosen, Mapping) else None
    return [("", "")] if chosen is not None else [(fold, expert.fold_key) for fold in folds]


def _cells(spec: SweepSpec, args: RunArguments, config: Mapping[str, Any], own: Sequence[str]) -> tuple[Cell, ...]:
    interfaces: Sequence[str | None] = spec.interface_texts or own or [None]
    normalize: Sequence[str | None] = ["off", "on"] if args.normalize == "both" else [args.normalize]
    rates: Sequence[float | None] = spec.values.get(LEARNING_RATE) or [None]
    cells = []
    for point in product(interfaces, normalize, spec.seeds, rates):
        interface, normal, seed, rate = point
        alone = replace(
            args,
            interface=[] if interface is None else [interface],
            normalize=normal,
            seeds=[seed],
            lr=[] if rate is None else [rate],
        )
        (lane,) = variants(alone, config)
        check_blocks(lane.config, strict=is_ours(args.downstream or ""))
        check_interface(lane.config)
        cells.append(Cell(point, lane.args, lane.config, args.folder / lane.name))
    twice = [folder.name for folder, count in Counter(cell.folder for cell in cells).items() if count > 1]
    if twice:
        raise ConfigError(f"Two lanes are the same: {', '.join(twice)}. Name each interface and learning rate once.")
    return tuple(cells)


def _compare(sweep: Sweep) -> None:
    """Refuse folders that hold other runs, and say where a config has changed since a cell was begun.

    Raises:
        ConfigError: a folder holds a run of another upstream, task or seed.
    """
    keys: Counter[str] = Counter()
    cells = 0
    for cell in sweep.cells:
        if cell.state.kind not in ("finished", "unfinished"):
            continue
        old = stored(cell.folder, "args.yaml")
        for key in IDENTITY:
            if key in old and old[key] != getattr(cell.args, key):
                raise ConfigError(
                    f"{cell.folder} holds a run with `{key}` {old[key]!r}, but {sweep.path} asks for "
                    f"{getattr(cell.args, key)!r}: choose another `name`, or delete the folder."
                )
        config = stored(cell.folder, "config.yaml")
        changed = differences(config, cell.config) if config else []
        keys.update(changed)
        cells += bool(changed)
    if cells:
        told = ", ".join(f"`{key}`" for key, _ in keys.most_common(MOST_SAID))
        log.warning(
            "Begun with another config than it is now, and going on with that: %d of %d cells (%s%s).",
            cells,
            len(sweep.cells),
            told,
            ", ..." if len(keys) > MOST_SAID else "",
        )
