"""From the command line to the lanes of a run: each lane is planned as the solo run that it is equal to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from downstream_tasks.registry import canonical_name, default_config
from s3prl_interfaces.errors import CheckpointError, ConfigError
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE
from s3prl_interfaces.files import write_whole
from s3prl_interfaces.plain_yaml import read_plain_yaml
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.checkpoint import find_checkpoint, load_checkpoint, step_checkpoints, step_of
from s3prl_interfaces.runner.config import interface_block, load_config, parse_interface
from s3prl_interfaces.runner.variants import settle, variants

log = logging.getLogger(__name__)

LANES = "lanes.yaml"
"""In the folder of a run of several lanes: the names of their folders."""


@dataclass(frozen=True)
class Start:
    """The checkpoint that a lane starts from."""

    path: Path
    states: dict[str, Any]
    continued: bool
    """True for ``-e`` and ``-a``; false for ``-i``, which takes the weights alone."""


@dataclass(frozen=True)
class Plan:
    """One lane: arguments and config of the solo run that it is equal to, and where it starts."""

    args: RunArguments
    config: dict[str, Any]
    start: Start | None

    @property
    def step(self) -> int:
        """Updates that are done already."""
        return self.start.states["Step"] if self.start is not None and self.start.continued else 0


def make_plans(args: RunArguments) -> list[Plan]:
    """Settle arguments, config and the checkpoint to start from (``-e``, ``-a``, ``-i``) of every lane.

    Raises:
        UserError: anything in them that the user can mend.
    """
    if args.past_exp is not None:
        places = lane_folders(Path(args.past_exp)) or [Path(args.past_exp)]
        return _align([_continue(args, place) for place in places])
    if args.auto_resume and len(args.interface) <= 1 and step_checkpoints(args.folder):
        return [_continue(args, args.folder)]
    lanes = variants(args, load_config(args.config or [default_config(args.downstream)]))
    if len(lanes) == 1:
        if args.mode == "train" and lane_folders(args.folder):
            raise ConfigError(
                f"{args.folder} holds several lanes: continue them with `-e {args.folder}`, or choose another `-n`."
            )
        return [_begin(lanes[0].args, lanes[0].config)]
    if lanes[0].args.mode != "train":
        raise ConfigError(f"`-m {lanes[0].args.mode}` takes the lanes of a run: name its folder with `-e`.")
    if lanes[0].args.upstream_trainable:
        raise ConfigError(
            "`-f` fine-tunes the upstream, and each lane would pull it another way: give one interface, one seed and "
            "one learning rate, and run the others one after another."
        )
    if step_checkpoints(args.folder):
        raise ConfigError(f"{args.folder} holds a run of one interface: choose another `-n` or `-p` for several lanes.")
    plans = [
        _continue(lane.args, lane.args.folder)
        if args.auto_resume and step_checkpoints(lane.args.folder)
        else _begin(lane.args, lane.config)
        for lane in lanes
    ]
    return _align(plans)


def lane_folders(folder: Path) -> list[Path]:
    """The folders of a run's lanes that have a checkpoint; none where it is not a run of several.

    Raises:
        CheckpointError: there are lanes, and no checkpoint in any.
    """
    places = [folder / name for name in _lane_names(folder)]
    found = [place for place in places if step_checkpoints(place)]
    if places and not found:
        raise CheckpointError(f"None of the lanes of {folder} has a checkpoint yet: start them again.")
    return found


def write_lanes(folder: Path, names: Sequence[str]) -> None:
    """Note the lanes of a run, beside those of an earlier start of it."""
    write_whole(folder / LANES, yaml.safe_dump(list(dict.fromkeys([*_lane_names(folder), *names]))))


def _lane_names(folder: Path) -> list[str]:
    try:
        names = read_plain_yaml((folder / LANES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []


def _align(plans: list[Plan]) -> list[Plan]:
    """Let lanes that were killed between one's checkpoint and another's go on together, from the checkpoint before."""
    aligned = []
    for plan in plans:
        others = {other.step for other in plans if other is not plan}
        if plan.start is not None and plan.start.continued and plan.step not in others:
            *_, before = [None, *step_checkpoints(plan.start.path.parent)[:-1]]
            if before is not None and step_of(plan.start.path) == plan.step and step_of(before) in others:
                log.info("%s: the other lanes stand at step %d, so this one goes back to it.", before, step_of(before))
                aligned.append(replace(plan, start=replace(plan.start, path=before, states=load_checkpoint(before))))
                continue
        aligned.append(plan)
    return aligned


def _begin(args: RunArguments, config: dict[str, Any]) -> Plan:
    start = None
    if args.init_ckpt is not None:
        path = Path(args.init_ckpt)
        start = Start(path, load_checkpoint(path), continued=False)
    return Plan(_with_task(args, config), config, start)


def _continue(given: RunArguments, place: Path) -> Plan:
    """A checkpoint's arguments and config win, as in S3PRL; ``-o`` changes them."""
    path = find_checkpoint(place)
    states = load_checkpoint(path)
    args = given.resumed_from(states["Args"])
    if given.auto_resume:  # the folder that is named now: the run may have been moved
        args.expname, args.expdir = given.expname, given.expdir
    config = states["Config"]
    _refuse_another_run(given, args, config, path)
    doing = "Continue from" if given.mode == "train" else "Load"
    log.info("%s %s (step %d) with its config; `-o` changes it.", doing, path, states["Step"])
    args, config = settle(args, config, args.interface[0] if args.interface else None)
    return Plan(_with_task(args, config), config, Start(path, states, continued=True))


def _with_task(args: RunArguments, config: Mapping[str, Any]) -> RunArguments:
    """S3PRL's ``ctc`` is several tasks; the config tells which."""
    return replace(args, downstream=canonical_name("ctc", config)) if args.downstream == "ctc" else args


def _refuse_another_run(given: RunArguments, stored: RunArguments, config: dict[str, Any], path: Path) -> None:
    """A checkpoint's arguments win; but who names another model or task would believe to have it."""
    name, options = interface_block(config)
    interface = (name or DEFAULT_INTERFACE, options)
    asked_interface = None
    if given.interface:
        asked_name, asked_options = parse_interface(given.interface[0])
        asked_interface = (asked_name, {**options, **asked_options} if asked_name == interface[0] else asked_options)
    normalizes = "on" if options.get("normalize") else "off"
    for flag, asked, kept in (
        ("-u", given.upstream, stored.upstream),
        ("--upstream_unpadded", given.upstream_unpadded, stored.upstream_unpadded),
        (
            "-d",
            given.downstream and canonical_name(given.downstream, config),
            canonical_name(stored.downstream or "", config),
        ),
        ("--interface", asked_interface, interface),
        ("--normalize", given.normalize, normalizes),
        ("--seeds", given.seeds, [stored.seed]),
        ("--lr", given.lr, [(config.get("optimizer") or {}).get("lr")]),
    ):
        if asked and asked != kept:
            raise ConfigError(
                f"{path} is of a run with `{flag} {_told(kept)}`, not {_told(asked)}: leave `{flag}` out, or start "
                "another run."
            )


def _told(value: Any) -> str:
    """A value of a flag as one writes it."""
    if isinstance(value, tuple):
        name, options = value
        return name + (":" + ",".join(f"{key}={option}" for key, option in options.items()) if options else "")
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
