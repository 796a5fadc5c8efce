"""One run from its arguments: read the config, build upstream and lane, then train, evaluate or infer."""

from __future__ import annotations

import errno
import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from downstream_tasks.registry import is_ours, load_expert
from s3prl_interfaces.errors import ConfigError, DataError, UserError
from s3prl_interfaces.feature_cache import CachedUpstream, Store, fingerprint
from s3prl_interfaces.files import write_whole
from s3prl_interfaces.results import Primary, read_result
from s3prl_interfaces.results.problems import FAILED_FILE
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.batches import split_loader
from s3prl_interfaces.runner.checkpoint import drop_partial, load_weights, step_checkpoints
from s3prl_interfaces.runner.config import FeatureCacheConfig, RunnerConfig, check_blocks
from s3prl_interfaces.runner.device import choose_device
from s3prl_interfaces.runner.evaluation import evaluate
from s3prl_interfaces.runner.fitting import fit_interfaces
from s3prl_interfaces.runner.inference import find_audio, infer
from s3prl_interfaces.runner.interruption import heeded
from s3prl_interfaces.runner.lane import Lane, living
from s3prl_interfaces.runner.logs import logging_to, warnings_only
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.outcome import RESULTS, finish, scored_splits
from s3prl_interfaces.runner.plan import Plan, make_plans, write_lanes
from s3prl_interfaces.runner.randomness import preserved, seed_everything
from s3prl_interfaces.runner.trained import TrainedModel
from s3prl_interfaces.runner.training import Position, Trainer
from s3prl_interfaces.upstream import load_upstream

log = logging.getLogger(__name__)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

MODES = ("train", "evaluate", "inference")


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs, built."""

    runner: RunnerConfig
    device: torch.device
    upstream: nn.Module
    lanes: list[Lane]

    @property
    def args(self) -> RunArguments:
        """What the lanes share."""
        return self.lanes[0].args

    def close(self) -> None:
        """Write what is kept in memory."""
        if isinstance(self.upstream, CachedUpstream):
            self.upstream.store.flush()


def run(args: RunArguments) -> None:
    """Do what ``args.mode`` says.

    ``train`` leaves config.yaml, args.yaml, log.txt, TensorBoard events, checkpoints, predictions and results.json in
    the experiment's folder; ``evaluate`` leaves the metrics and the predictions of one split of one checkpoint in
    ``evaluate/<checkpoint>-<split>/``, and ``inference`` what the head says of audio files in ``inference/...``.

    Raises:
        UserError: anything that the user can mend.
        Stopped: a signal asked for it in the middle of training; a checkpoint says where.
    """
    if args.push_to_hf_hub:
        raise ConfigError("`--push_to_hf_hub` is not supported: upload the folder with `hf upload` afterwards.")
    gpu = choose_device(args.device).type == "cuda"
    with distributed.joined(args.backend, args.local_rank, gpu), warnings_only(not distributed.is_first()):
        if args.all_folds:
            _run_folds(args)
        else:
            _run(args)


def _run(args: RunArguments) -> None:
    plans = make_plans(args)
    mode = plans[0].args.mode  # `-o` may have changed it
    if mode not in MODES:
        raise ConfigError(f"`-m` must be one of {', '.join(MODES)}, but is {mode!r}.")
    todo = [plan for plan in plans if mode != "train" or not is_done(plan)]
    folder = plans[0].args.folder if len(plans) == 1 else plans[0].args.folder.parent
    if not todo:
        log.info("%s holds the finished run already; there is nothing left to do.", folder)
    if mode == "inference" and distributed.world_size() > 1:
        raise ConfigError("`-m inference` is for one process: start it without torchrun.")
    distributed.wait()  # nobody writes before everybody has looked at what is there
    if len(plans) > 1 and mode == "train" and distributed.is_first():
        _make_folder(folder)
        write_lanes(folder, [plan.args.folder.name for plan in plans])
    failed = []
    groups = grouped(todo)
    for group in groups:
        experiment = build(group)
        for lane in experiment.lanes:
            # Of several processes all must go on with the same lanes, so there a failure ends them all.
            lane.has_company = len(plans) > 1 and distributed.world_size() == 1
        try:
            {"train": _train, "evaluate": _evaluate, "inference": _infer}[mode](experiment)
        except UserError:  # where no lane of the group is left, those of the others still go on
            if len(groups) == 1 or any(lane.failed is None for lane in experiment.lanes):
                raise
        finally:
            experiment.close()
        failed += [f"{lane.name} ({lane.failed})" for lane in experiment.lanes if lane.failed is not None]
    if failed:
        raise UserError(f"{len(failed)} of {len(plans)} lanes failed, the others are finished: {'; '.join(failed)}")


def grouped(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Plans that can go on together, those that are behind first.

    Lanes that stand at one step share the upstream; one that was added later, or has died and is tried again, goes on
    by itself.
    """
    groups: dict[tuple[int, int], list[Plan]] = defaultdict(list)
    for plan in plans:
        groups[plan.step if plan.args.mode == "train" else 0, plan.args.order_seed].append(plan)
    return [groups[key] for key in sorted(groups)]


def _run_folds(args: RunArguments) -> None:
    """Train one fold after another into ``<folder>/<fold>/``; with ``-a``, finished folds are left as they are."""
    expert: Any = load_expert(args.downstream or "")
    folds: Sequence[str] = getattr(expert, "folds", ())
    if not folds:
        raise ConfigError(f"`--all-folds`: task `{args.downstream}` is not cross-validated; leave it out.")
    if args.mode != "train" or args.past_exp is not None or args.init_ckpt is not None:
        raise ConfigError("`--all-folds` goes with `-m train`, without `-e` and `-i`; `-a` continues.")
    folders = [args.folder / fold for fold in folds]
    for number, (fold, folder) in enumerate(zip(folds, folders, strict=True), start=1):
        log.info("%s, %d of %d: %s", fold, number, len(folds), folder)
        override = ",,".join(filter(None, [args.override, f"config.{expert.fold_key}={fold}"]))
        run(replace(args, all_folds=False, override=override, expname=None, expdir=str(folder)))
    by_lane: dict[str, list[Primary]] = defaultdict(list)
    for place in folders:
        for path in sorted(place.rglob(RESULTS)):
            by_lane[path.parent.relative_to(place).as_posix()].append(read_result(path).primary)
    for lane, scores in by_lane.items():
        mean = sum(score.value for score in scores) / len(scores)
        told = "" if lane == "." else f"{lane}: "
        log.info("%sMean %s %s of %d folds: %.4f", told, scores[0].split, scores[0].name, len(scores), mean)


def load_experiment(checkpoint: str | Path, *, device: str = "auto", override: str | None = None) -> TrainedModel:
    """Load upstream, interface and head of a trained run.

    The corpus that it was trained on is not needed: our checkpoints hold its labels. S3PRL's do not, so with one of
    those the corpus that its config names is read.

    Args:
        checkpoint: a checkpoint of ours or of S3PRL's, or a run's folder (its newest ``states-*.ckpt``).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        override: as ``-o``: ``args.upstream_ckpt=NEW/PATH.pt`` where the upstream's own checkpoint has moved.

    Raises:
        UserError: the checkpoint or the upstream cannot be loaded.
    """
    asked = RunArguments(mode="inference", past_exp=str(checkpoint), device=device, override=override)
    with preserved():
        plans = make_plans(asked)
        if len(plans) > 1:
            raise ConfigError(f"{checkpoint} holds {len(plans)} lanes: give the folder of one of them.")
        experiment = build(plans)
    return TrainedModel(experiment.upstream, experiment.lanes[0], experiment.device)


def is_done(plan: Plan) -> bool:
    """Whether a lane has nothing left to do.

    Raises:
        ConfigError: its folder holds a run that this one would overwrite.
    """
    folder, start = plan.args.folder, plan.start
    finished = (folder / RESULTS).exists()
    if start is not None and start.continued and start.path.parent.resolve() == folder.resolve():
        return finished and start.states["Step"] >= _runner(plan).total_steps
    if finished or step_checkpoints(folder):
        kind = "a finished" if finished else "an unfinished"
        raise ConfigError(
            f"{folder} already holds {kind} run: continue it with `-a` (longer with "
            f"`-o config.runner.total_steps=N`), choose another `-n` or `-p`, or delete the folder."
        )
    return False


def _runner(plan: Plan) -> RunnerConfig:
    """The checked ``runner`` block.

    Raises:
        ConfigError: no upstream or task is named, or the config has a mistake.
    """
    for name in ("upstream", "downstream"):
        if not getattr(plan.args, name):
            raise ConfigError(f"Which {name}? Give it with `-{name[0]} NAME` (see `s3prl-interfaces list {name}s`).")
    return check_blocks(plan.config, strict=is_ours(plan.args.downstream or ""))


def build(plans: Sequence[Plan]) -> Experiment:
    """The upstream, and the lanes of plans that share it."""
    args, runner = plans[0].args, _runner(plans[0])
    for plan in plans[1:]:
        if _runner(plan) != runner:
            raise ConfigError(
                f"{plan.args.folder} has another `runner` block than {args.folder}: lanes go side by side only with "
                "the same steps. Change both with `-o`, or run them one after another."
            )
    if runner.feature_cache is not None and args.upstream_trainable:
        raise ConfigError("`runner.feature_cache` keeps what a frozen upstream says: leave it out, or `-f`.")
    device = choose_device(args.device)
    if args.cache_dir is not None:
        torch.hub.set_dir(args.cache_dir)
    # As S3PRL (s3prl/run_downstream.py): repeatable before fast.
    torch.backends.cudnn.enabled = not args.disable_cudnn
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = bool(runner.tf32)
    torch.backends.cudnn.allow_tf32 = runner.tf32 is not False
    for seed in (args.order_seed, *(plan.args.seed for plan in plans)):
        if not 0 <= seed < 2**32:
            raise ConfigError(f"`--seed`, `--seeds` and `--data_seed` must be from 0 to 2**32 - 1, but one is {seed}.")
    seed_everything(args.order_seed)
    with distributed.first_goes_ahead():
        upstream, lanes = _build_models(plans, runner, device)
    if runner.feature_cache is not None and args.mode != "inference":
        upstream = _cached(upstream, runner.feature_cache, lanes[0])
    # Once more: how much an upstream's constructor draws must not decide in which order the data comes.
    seed_everything(args.order_seed + distributed.rank())
    return Experiment(runner, device, upstream, lanes)


def _build_models(plans: Sequence[Plan], runner: RunnerConfig, device: torch.device) -> tuple[nn.Module, list[Lane]]:
    args = plans[0].args
    upstream = load_upstream(
        args.upstream or "",
        ckpt=args.upstream_ckpt,
        model_config=args.upstream_model_config,
        refresh=args.upstream_refresh and distributed.is_first(),
        hub=args.hub,
        model_name=args.upstream_model_name,
        revision=args.upstream_revision,
        unpadded=args.upstream_unpadded,
    ).to(device)
    upstream.requires_grad_(args.upstream_trainable)
    lanes: list[Lane] = []
    for plan in plans:
        start = plan.start
        # Without its corpus, a head is rebuilt from what its checkpoint says of the labels.
        labels = start.states.get("Labels") if start is not None and args.mode == "inference" else None
        beside = lanes[0] if lanes and labels is None else None
        lane = Lane(_output_folder(plan), plan, runner, upstream, device, labels, beside)
        if start is not None:
            if start.states.get("Upstream"):
                load_weights(upstream, start.states["Upstream"], "Upstream", start.path)
            lane.load_weights(start.states, start.path)
        lanes.append(lane)
    return upstream, lanes


def _cached(upstream: nn.Module, config: FeatureCacheConfig, lane: Lane) -> CachedUpstream:
    """The upstream behind a cache; each upstream, selection and dtype has a folder of its own."""
    key, layer = lane.featurizer.feature_selection, lane.args.upstream_layer_selection
    dtype = getattr(torch, config.dtype)
    root = Path(config.dir).expanduser()
    folder = root / fingerprint(upstream, (key, layer, config.dtype))
    log.info("Hidden states are kept in %s.", folder)
    return CachedUpstream(upstream, key, layer, dtype, Store(folder, root, config.max_bytes))


def _output_folder(plan: Plan) -> Path:
    args, start = plan.args, plan.start
    if args.mode == "train":
        return args.folder
    # Beside the run's own files: its results and predictions belong to the checkpoint that it chose itself.
    named = args.expdir is not None or args.expname is not None
    base = args.folder if named or start is None else start.path.parent
    checkpoint = start.path.stem if start is not None else "untrained"
    return base / args.mode / f"{checkpoint}-{Path(args.evaluate_split).stem}"


def prepare_training(experiment: Experiment) -> Position:
    """Give the lanes what only training needs; where to begin. Nothing is written.

    Raises:
        UserError: a split cannot be loaded, or a checkpoint does not fit.
    """
    args, lanes = experiment.args, experiment.lanes
    # What can be wrong should be now, not after the first evaluation.
    with preserved():
        for split in (experiment.runner.train_dataloader, *scored_splits(lanes[0], experiment.runner)):
            split_loader(lanes[0].head, split)
    position = Position()
    for lane in lanes:
        lane.start_training(experiment.upstream if args.upstream_trainable else None)
        if lane.start is not None and lane.start.continued:
            lane.load_training(lane.start.states, lane.start.path)
            position = Position.from_states(lane.start.states)
    return position


def _train(experiment: Experiment) -> None:
    args, lanes, upstream = experiment.args, experiment.lanes, experiment.upstream
    position = prepare_training(experiment)
    with ExitStack() as stack:
        stack.enter_context(heeded())
        for lane in lanes if distributed.is_first() else ():
            _make_folder(lane.folder)
            (lane.folder / FAILED_FILE).unlink(missing_ok=True)
            drop_partial(lane.folder)
            _write_yaml(lane.folder / "config.yaml", lane.config)
            _write_yaml(lane.folder / "args.yaml", lane.args.to_dict())
            lane.logger = MetricLogger(str(lane.folder), position.step)
            stack.callback(lane.logger.close)
            stack.enter_context(logging_to(lane.folder / "log.txt"))
        # A checkpoint holds the fit.
        fit_interfaces(upstream, [lane for lane in lanes if lane.start is None], experiment.device)
        trainer = Trainer(
            upstream,
            lanes,
            args.upstream_trainable,
            args.order_seed,
            experiment.runner,
            experiment.device,
            position,
        )
        try:
            trainer.train()
            finish(upstream, living(lanes), experiment.runner, experiment.device)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DataError(
                f"Files in {lanes[0].folder} cannot be written: {error}. Make room, and continue with `-a`."
            ) from error


def _evaluate(experiment: Experiment) -> None:
    args, lanes = experiment.args, experiment.lanes
    with preserved():
        split_loader(lanes[0].head, args.evaluate_split)  # an unknown split leaves no folder
    if lanes[0].start is None:
        log.warning("No checkpoint (`-e` or `-i`): these are the scores of an untrained head.")
    for lane in lanes if distributed.is_first() else ():
        _make_folder(lane.folder)
        lane.logger = MetricLogger(str(lane.folder))
    steps = [lane.start.states["Step"] if lane.start is not None else 0 for lane in lanes]
    evaluations = evaluate(
        experiment.upstream, lanes, args.evaluate_split, steps=steps, seed=args.order_seed, device=experiment.device
    )
    for lane, step, done in zip(lanes, steps, evaluations, strict=True) if distributed.is_first() else ():
        lane.logger.close()
        if done is None:
            continue
        content = {
            "split": args.evaluate_split,
            "checkpoint": str(lane.start.path) if lane.start is not None else None,
            "step": step,
            "utterances": done.utterances,
            "metrics": done.metrics,
        }
        write_whole(lane.folder / "metrics.json", json.dumps(content, indent=2) + "\n")
        shown = ", ".join(f"{key} {value:.6g}" for key, value in done.metrics.items())
        log.info("%s, %d utterances, step %d: %s", args.evaluate_split, done.utterances, step, shown)
        log.info("Metrics and predictions: %s", lane.folder)


def _infer(experiment: Experiment) -> None:
    files = find_audio(Path(experiment.args.evaluate_split))
    for lane in experiment.lanes:
        _make_folder(lane.folder)
        infer(experiment.upstream, lane, files, experiment.device)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be made: {error}.") from error


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, yaml.safe_dump(content, sort_keys=False))
