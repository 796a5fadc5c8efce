"""``s3prl-interfaces layers``: what the interfaces of finished runs look at, written beside results.json."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results import find_results
from s3prl_interfaces.results.layers import read_layers, write_layers
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.checkpoint import find_checkpoint, load_checkpoint
from s3prl_interfaces.runner.experiment import build
from s3prl_interfaces.runner.layer_analysis import MeanOver, analyse_layers, selecting_split
from s3prl_interfaces.runner.plan import LANES, Plan, make_plans

log = logging.getLogger(__name__)


def look_at_layers(places: Sequence[Path], *, device: str = "auto", mean_over: MeanOver = "split") -> None:
    """Analyse the scored checkpoint of every finished run below some folders; one that was analysed before is left.

    The lanes of a run share the upstream's passes. The corpus must be where the runs' configs say.

    Args:
        places: folders that hold runs, at any depth.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        mean_over: see :func:`~s3prl_interfaces.runner.layer_analysis.analyse_layers`.

    Raises:
        UserError: there is no run, or one cannot be loaded.
    """
    runs: dict[Path, list[Path]] = defaultdict(list)
    for result in find_results(places):
        folder = result.parent
        runs[folder.parent if (folder.parent / LANES).exists() else folder].append(folder)
    for run, folders in runs.items():
        plans = {folder: _scored(folder, device) for folder in folders}
        todo = {folder: plan for folder, plan in plans.items() if not _is_done(folder, plan, mean_over)}
        log.info("%s: %d of %d to do.", run, len(todo), len(folders))
        if not todo:
            continue
        experiment = build([*todo.values()])
        lanes = experiment.lanes
        split = selecting_split(lanes[0])
        seed = experiment.args.order_seed
        try:
            found = analyse_layers(
                experiment.upstream, lanes, split, seed=seed, device=experiment.device, mean_over=mean_over
            )
        finally:
            experiment.close()
        for folder, layers in zip(todo, found, strict=True):
            if layers is not None:
                write_layers(folder, layers)


def _scored(folder: Path, device: str) -> Plan:
    """A plan to load the checkpoint that a run's results.json is of."""
    newest = find_checkpoint(folder)
    best = load_checkpoint(newest).get("Best")
    path = folder / best if best and (folder / best).exists() else newest
    (plan,) = make_plans(RunArguments(mode="evaluate", past_exp=str(path), device=device))
    return plan


def _is_done(folder: Path, plan: Plan, mean_over: MeanOver) -> bool:
    try:
        before = read_layers(folder)
    except ResultError as error:
        log.warning("%s", error)
        return False
    if before is None or plan.start is None:
        return False
    now = (plan.start.path.name, plan.start.states["Step"], mean_over)
    return (before.checkpoint, before.step, before.mean_over) == now
