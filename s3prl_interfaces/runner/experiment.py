"""One run from its arguments: read the config, build upstream and lane, then train, evaluate or infer."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from downstream_tasks.registry import canonical_name, default_config, is_ours, load_expert
from s3prl_interfaces.errors import ConfigError, DataError
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE
from s3prl_interfaces.results import load_results
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.batches import split_loader
from s3prl_interfaces.runner.checkpoint import (
    find_checkpoint,
    load_checkpoint,
    load_weights,
    step_checkpoints,
)
from s3prl_interfaces.runner.config import (
    RunnerConfig,
    apply_overrides,
    check_blocks,
    interface_block,
    load_config,
    set_interface,
)
from s3prl_interfaces.runner.evaluation import evaluate
from s3prl_interfaces.runner.fitting import fit_interface
from s3prl_interfaces.runner.inference import find_audio, infer
from s3prl_interfaces.runner.lane import Lane
from s3prl_interfaces.runner.logs import logging_to
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.outcome import RESULTS, finish, scored_splits
from s3prl_interfaces.runner.randomness import preserved, seed_everything
from s3prl_interfaces.runner.trained import TrainedModel
from s3prl_interfaces.runner.training import Position, Trainer
from s3prl_interfaces.upstream import load_upstream

log = logging.getLogger(__name__)

MODES = ("train", "evaluate", "inference")


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from."""

    path: Path
    states: dict[str, Any]
    continued: bool
    """True for ``-e`` and ``-a``; false for ``-i``, which takes the weights alone."""


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs, built."""

    args: RunArguments
    runner: RunnerConfig
    device: torch.device
    upstream: nn.Module
    lane: Lane
    start: Start | None


def run(args: RunArguments) -> None:
    """Do what ``args.mode`` says.

    ``train`` leaves config.yaml, args.yaml, log.txt, TensorBoard events, checkpoints, predictions and results.json in
    the experiment's folder; ``evaluate`` leaves the metrics and the predictions of one split of one checkpoint in
    ``evaluate/<checkpoint>-<split>/``, and ``inference`` what the head says of audio files in ``inference/...``.

    Raises:
        UserError: anything that the user can mend.
    """
    _refuse_unsupported(args)
    if args.all_folds:
        _run_folds(args)
        return
    args, config, start = _read(args)
    if args.mode not in MODES:
        raise ConfigError(f"`-m` must be one of {', '.join(MODES)}, but is {args.mode!r}.")
    for name in ("upstream", "downstream"):
        if not getattr(args, name):
            raise ConfigError(f"Which {name}? Give it with `-{name[0]} NAME` (see `s3prl-interfaces list {name}s`).")
    runner = check_blocks(config, strict=is_ours(args.downstream or ""))
    if args.mode == "train" and _is_done(args, start, runner):
        log.info("%s holds the finished run already; there is nothing left to do.", args.folder)
        return
    experiment = _build(args, config, runner, start)
    {"train": _train, "evaluate": _evaluate, "inference": _infer}[args.mode](experiment)


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
    scores = [result.primary for result in load_results(folders)]
    mean = sum(score.value for score in scores) / len(scores)
    log.info("Mean %s %s of %d folds: %.4f", scores[0].split, scores[0].name, len(scores), mean)


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
        args, config, start = _read(asked)
        runner = check_blocks(config, strict=is_ours(args.downstream or ""))
        experiment = _build(args, config, runner, start)
    return TrainedModel(experiment.upstream, experiment.lane, experiment.device)


def _read(args: RunArguments) -> tuple[RunArguments, dict[str, Any], Start | None]:
    """Settle arguments, config and the checkpoint to start from (``-e``, ``-a``, ``-i``)."""
    if args.auto_resume and step_checkpoints(args.folder):
        args.past_exp = str(args.folder)
    start = None
    if args.past_exp is not None:
        path = find_checkpoint(Path(args.past_exp))
        start = Start(path, load_checkpoint(path), continued=True)
        given = args
        args = given.resumed_from(start.states["Args"])
        if given.auto_resume:  # the folder that is named now: the run may have been moved
            args.expname, args.expdir = given.expname, given.expdir
        config = start.states["Config"]
        _refuse_another_run(given, args, config, path)
        log.info("Continue from %s (step %d) with its config; `-o` changes it.", path, start.states["Step"])
    else:
        if args.init_ckpt is not None:
            path = Path(args.init_ckpt)
            start = Start(path, load_checkpoint(path), continued=False)
        config = load_config(args.config or [default_config(args.downstream)])
    chosen = _choose_interface(args, config)  # first: `--interface hconv -o config.interface.kernel_size=3`
    apply_overrides(args.override, args, config)
    if args.interface != chosen:  # `-o args.interface=NAME`
        _choose_interface(args, config)
    if args.downstream == "ctc":
        args.downstream = canonical_name("ctc", config)
    return args, config, start


def _refuse_another_run(given: RunArguments, stored: RunArguments, config: dict[str, Any], path: Path) -> None:
    """A checkpoint's arguments win, as in S3PRL; but who names another model or task would believe to have it."""
    interface = interface_block(config)[0] or DEFAULT_INTERFACE
    for flag, asked, kept in (
        ("-u", given.upstream, stored.upstream),
        (
            "-d",
            given.downstream and canonical_name(given.downstream, config),
            canonical_name(stored.downstream or "", config),
        ),
        ("--interface", next(iter(given.interface), None), interface),
    ):
        if asked and asked != kept:
            raise ConfigError(
                f"{path} is of a run with `{flag} {kept}`, not {asked}: leave `{flag}` out, or start another run."
            )


def _choose_interface(args: RunArguments, config: dict[str, Any]) -> list[str]:
    if len(args.interface) > 1:
        raise ConfigError(
            f"`--interface` takes one name, but got {' '.join(args.interface)}: run them one after another, each with "
            "its own `-n`, and compare them with `s3prl-interfaces leaderboard`."
        )
    for name in args.interface:
        set_interface(config, name)
    return list(args.interface)


def _refuse_unsupported(args: RunArguments) -> None:
    if args.local_rank is not None:
        raise ConfigError("`--local_rank`: training on several GPUs is not supported yet; leave it out.")
    if args.push_to_hf_hub:
        raise ConfigError("`--push_to_hf_hub` is not supported: upload the folder with `hf upload` afterwards.")


def _is_done(args: RunArguments, start: Start | None, runner: RunnerConfig) -> bool:
    """Whether a continued run has nothing left to do.

    Raises:
        ConfigError: the folder holds a run that this one would overwrite.
    """
    folder = args.folder
    finished = (folder / RESULTS).exists()
    if start is not None and start.continued and start.path.parent.resolve() == folder.resolve():
        return finished and start.states["Step"] >= runner.total_steps
    if finished or step_checkpoints(folder):
        kind = "a finished" if finished else "an unfinished"
        raise ConfigError(
            f"{folder} already holds {kind} run: continue it with `-a` (longer with "
            f"`-o config.runner.total_steps=N`), choose another `-n` or `-p`, or delete the folder."
        )
    return False


def _build(args: RunArguments, config: dict[str, Any], runner: RunnerConfig, start: Start | None) -> Experiment:
    device = _device(args.device)
    if args.cache_dir is not None:
        torch.hub.set_dir(args.cache_dir)
    # As S3PRL (s3prl/run_downstream.py): repeatable before fast.
    torch.backends.cudnn.enabled = not args.disable_cudnn
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"`--seed` must be from 0 to 2**32 - 1, but is {args.seed}.")
    seed_everything(args.seed)
    upstream = load_upstream(
        args.upstream or "",
        ckpt=args.upstream_ckpt,
        model_config=args.upstream_model_config,
        refresh=args.upstream_refresh,
        hub=args.hub,
        model_name=args.upstream_model_name,
        revision=args.upstream_revision,
    ).to(device)
    upstream.requires_grad_(args.upstream_trainable)
    # Without its corpus, a head is rebuilt from what its checkpoint says of the labels.
    labels = start.states.get("Labels") if start is not None and args.mode == "inference" else None
    lane = Lane(_output_folder(args, start), args, config, runner, upstream, device, labels)
    if start is not None:
        if start.states.get("Upstream"):
            load_weights(upstream, start.states["Upstream"], "Upstream", start.path)
        lane.load_weights(start.states, start.path)
    return Experiment(args, runner, device, upstream, lane, start)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"`--device {name}` is not a device: use auto, cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"`--device {name}` is not supported: use auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ConfigError(f"`--device {name}`: PyTorch sees {count} CUDA devices here; use `--device auto` or `cpu`.")
    return device


def _output_folder(args: RunArguments, start: Start | None) -> Path:
    if args.mode == "train":
        return args.folder
    # Beside the run's own files: its results and predictions belong to the checkpoint that it chose itself.
    named = args.expdir is not None or args.expname is not None
    base = args.folder if named or start is None else start.path.parent
    checkpoint = start.path.stem if start is not None else "untrained"
    return base / args.mode / f"{checkpoint}-{Path(args.evaluate_split).stem}"


def _train(experiment: Experiment) -> None:
    args, lane, start = experiment.args, experiment.lane, experiment.start
    # Before the folder is made: what can be wrong should be, not after the first evaluation.
    with preserved():
        for split in (experiment.runner.train_dataloader, *scored_splits(lane, args, experiment.runner)):
            split_loader(lane.head, split)
    lane.start_training(experiment.upstream if args.upstream_trainable else None)
    position = Position()
    if start is not None and start.continued:
        lane.load_training(start.states, start.path)
        position = Position.from_states(start.states)
    _make_folder(lane.folder)
    with logging_to(lane.folder / "log.txt"):
        _write_yaml(lane.folder / "config.yaml", lane.config)
        _write_yaml(lane.folder / "args.yaml", args.to_dict())
        lane.logger = MetricLogger(str(lane.folder))
        if start is None:  # a checkpoint holds the fit
            fit_interface(experiment.upstream, lane, experiment.device)
        Trainer(experiment.upstream, [lane], args, experiment.runner, experiment.device, position).train()
        finish(experiment.upstream, lane, args, experiment.runner, experiment.device)
        lane.logger.close()


def _evaluate(experiment: Experiment) -> None:
    args, lane, start = experiment.args, experiment.lane, experiment.start
    step = start.states["Step"] if start is not None else 0
    with preserved():
        split_loader(lane.head, args.evaluate_split)  # an unknown split leaves no folder
    if start is None:
        log.warning("No checkpoint (`-e` or `-i`): these are the scores of an untrained head.")
    _make_folder(lane.folder)
    lane.logger = MetricLogger(str(lane.folder))
    (done,) = evaluate(
        experiment.upstream, [lane], args.evaluate_split, step=step, seed=args.seed, device=experiment.device
    )
    lane.logger.close()
    content = {
        "split": args.evaluate_split,
        "checkpoint": str(start.path) if start is not None else None,
        "step": step,
        "utterances": done.utterances,
        "metrics": done.metrics,
    }
    (lane.folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    shown = ", ".join(f"{key} {value:.6g}" for key, value in done.metrics.items())
    log.info("%s, %d utterances, step %d: %s", args.evaluate_split, done.utterances, step, shown)
    log.info("Metrics and predictions: %s", lane.folder)


def _infer(experiment: Experiment) -> None:
    files = find_audio(Path(experiment.args.evaluate_split))
    _make_folder(experiment.lane.folder)
    infer(experiment.upstream, experiment.lane, files, experiment.device)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be made: {error}.") from error


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
