"""From a trained lane to its results.json: the kept checkpoint, evaluated on whole splits."""

from __future__ import annotations

import logging
import math
import platform
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch
from torch import nn

from downstream_tasks.registry import canonical_name
from downstream_tasks.score import Score
from s3prl_interfaces.errors import ConfigError
from s3prl_interfaces.featurizer import SAMPLE_RATE
from s3prl_interfaces.interfaces import count_macs
from s3prl_interfaces.results import Primary, RunResult, config_sha256, write_result
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.checkpoint import find_checkpoint, load_checkpoint, load_weights
from s3prl_interfaces.runner.config import FeatureCacheConfig, RunnerConfig
from s3prl_interfaces.runner.evaluation import Evaluation, evaluate
from s3prl_interfaces.runner.lane import Lane

log = logging.getLogger(__name__)

RESULTS = "results.json"

# For S3PRL's own experts, which do not say what counts: the field's metrics, and whether higher is better.
KNOWN_METRICS = {"acc": True, "wer": False, "per": False, "eer": False, "cer": False, "loss": False}


def finish(upstream: nn.Module, lanes: Sequence[Lane], runner: RunnerConfig, device: torch.device) -> None:
    """Score the kept checkpoint of every lane on every split, and write each lane's ``results.json``.

    The checkpoint is the best that the expert asked to keep (on dev, or on what its ``selects_on`` says), else the
    last one. Every split is evaluated whole, so the predictions that the expert leaves on disk are those of the scores.

    Raises:
        ResultError: the file cannot be written.
        ConfigError: the task reports no metric that could be its score.
        UserError: no lane is left.
    """
    began = time.monotonic()
    distributed.wait()  # for the first process to have written the last checkpoint
    steps = [_load_kept(upstream, lane) for lane in lanes]
    evaluations: dict[str, list[Evaluation | None]] = {}
    for split in scored_splits(lanes[0], runner):
        evaluations[split] = evaluate(upstream, lanes, split, steps=steps, seed=lanes[0].args.order_seed, device=device)
    seconds = time.monotonic() - began
    if not distributed.is_first():
        return
    for index, (lane, step) in enumerate(zip(lanes, steps, strict=True)):
        with lane.guard(step):
            mine = {split: of_split[index] for split, of_split in evaluations.items()}
            done = {split: evaluation for split, evaluation in mine.items() if evaluation is not None}
            if lane.failed is None:
                _write(lane, _result(upstream, lane, done, step, seconds, device), done)


def _load_kept(upstream: nn.Module, lane: Lane) -> int:
    """Load the weights that are scored; returns their step."""
    path = lane.folder / lane.best if lane.best is not None else find_checkpoint(lane.folder)
    states = load_checkpoint(path)
    lane.load_weights(states, path)
    if states.get("Upstream"):
        load_weights(upstream, states["Upstream"], "Upstream", path)
    return states["Step"]


def _result(
    upstream: nn.Module,
    lane: Lane,
    evaluations: Mapping[str, Evaluation],
    step: int,
    seconds: float,
    device: torch.device,
) -> RunResult:
    args = lane.args
    primary = _primary(lane, evaluations)
    return RunResult(
        task=canonical_name(args.downstream or "", lane.config),
        upstream=_upstream_name(args, lane.runner.feature_cache),
        interface=lane.interface_name,
        interface_options=lane.interface_options,
        seed=args.seed,
        data_seed=args.order_seed,
        learning_rate=lane.config["optimizer"].get("lr"),
        fold=getattr(lane.head, "fold", None),  # of a cross-validated task
        protocol=getattr(lane.head, "protocol", {}),
        metrics={split: {**_finite(split, done), "step": step} for split, done in evaluations.items()},
        primary=primary,
        selection=_selection(lane, primary, evaluations),
        parameters={
            "interface": trained_parameters([lane.featurizer]),
            "downstream": trained_parameters([lane.head]),
            "upstream_trainable": trained_parameters([upstream]) if args.upstream_trainable else 0,
        },
        macs_per_second=_macs_per_second(lane),
        # The seconds of training are those of the whole run, not of the best step.
        seconds={"train": load_checkpoint(find_checkpoint(lane.folder))["Seconds"], "evaluate": seconds},
        peak_memory_bytes=peak_memory(device),
        versions=_versions(),
        config_sha256=config_sha256(lane.config),
        counts={split: done.utterances for split, done in evaluations.items()},
    )


def _write(lane: Lane, result: RunResult, evaluations: Mapping[str, Evaluation]) -> None:
    write_result(lane.folder / RESULTS, result)
    shown = ", ".join(
        f"{split} {result.primary.name} {done.metrics[result.primary.name]:.4f}" for split, done in evaluations.items()
    )
    log.info(
        "%s, %s at step %d: %s. Results: %s",
        lane.name,
        f"best on {_selecting_split(lane)}" if lane.best is not None else "the last weights",
        result.metrics[result.primary.split]["step"],
        shown,
        lane.folder / RESULTS,
    )


def scored_splits(lane: Lane, runner: RunnerConfig) -> list[str]:
    """The splits that :func:`finish` evaluates."""
    return list(dict.fromkeys([*runner.eval_dataloaders, _score_split(lane)]))


def _score(lane: Lane) -> Score | None:
    return getattr(lane.head, "score", None)


def choose_score(lane: Lane, split: str, metrics: Mapping[str, float]) -> Score:
    """The metric by which runs of a task are compared: what the expert states, else the first that is known.

    Args:
        lane: whose head it is.
        split: that was evaluated.
        metrics: what the head logged of it.

    Raises:
        ConfigError: none of the metrics can be the score.
    """
    logged = ", ".join(metrics) or "nothing"
    own = _score(lane)
    if own is not None:
        if own.metric not in metrics:
            raise ConfigError(f"Split `{split}` has no score: the task's is {own.metric}, and it logs {logged} there.")
        return Score(own.metric, split, own.higher_is_better)
    known = [name for name in KNOWN_METRICS if name in metrics]
    if not known:
        raise ConfigError(
            f"None of the task's metrics ({logged}) is known to be a score ({', '.join(KNOWN_METRICS)}): give its "
            "DownstreamExpert a `score`."
        )
    return Score(known[0], split, KNOWN_METRICS[known[0]])


def _score_split(lane: Lane) -> str:
    score = _score(lane)
    return score.split if score is not None else lane.args.evaluate_split


def _selecting_split(lane: Lane) -> str | None:
    """The split that chose the weights, if one did; of ``dev-clean-best.ckpt`` it is ``dev-clean``."""
    return lane.best.removesuffix("-best.ckpt") if lane.best is not None else None


def _selection(lane: Lane, primary: Primary, evaluations: Mapping[str, Evaluation]) -> Primary | None:
    split = _selecting_split(lane)
    if split is None or split not in evaluations:
        return None
    value = evaluations[split].metrics.get(primary.name, math.nan)
    return replace(primary, split=split, value=value) if math.isfinite(value) else None


def _primary(lane: Lane, evaluations: Mapping[str, Evaluation]) -> Primary:
    split = _score_split(lane)
    metrics = evaluations[split].metrics
    score = choose_score(lane, split, metrics)
    return Primary(
        name=score.metric,
        split=split,
        value=metrics[score.metric],
        higher_is_better=score.higher_is_better,
    )


def _finite(split: str, evaluation: Evaluation) -> dict[str, float]:
    for name, value in evaluation.metrics.items():
        if not math.isfinite(value):
            log.warning("%s %s is %s: left out of %s.", split, name, value, RESULTS)
    return {name: value for name, value in evaluation.metrics.items() if math.isfinite(value)}


def _upstream_name(args: RunArguments, cache: FeatureCacheConfig | None) -> str:
    """``-u`` and whatever else decides what comes out of the upstream: unlike things must not share a table."""
    details = []
    if args.upstream_ckpt:  # `hubert_local` alone says nothing
        details.append(Path(args.upstream_ckpt).name)
    if args.upstream_revision:
        details.append(args.upstream_revision)
    if args.upstream_unpadded or cache is not None:  # a cache runs utterances one at a time
        details.append("unpadded")
    if cache is not None and cache.dtype != "float32":
        details.append(cache.dtype)
    if args.upstream_feature_selection != "hidden_states":
        details.append(args.upstream_feature_selection)
    if args.upstream_trainable:
        details.append("fine-tuned")
    return (args.upstream or "") + (f" ({', '.join(details)})" if details else "")


def _macs_per_second(lane: Lane) -> int:
    """Of the interface, 0 where the upstream gives one hidden state; at S3PRL's 16 kHz."""
    interface = lane.featurizer.interface
    return 0 if interface is None else count_macs(interface, round(SAMPLE_RATE / lane.featurizer.downsample_rate))


def trained_parameters(modules: Sequence[nn.Module]) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters() if parameter.requires_grad)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had: of a GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts kB


def _versions() -> dict[str, str]:
    names = {
        "torch": "torch",
        "torchaudio": "torchaudio",
        "s3prl": "s3prl",
        "s3prl_interfaces": "s3prl-interfaces",
    }
    versions = {"python": platform.python_version()}
    for name, distribution in names.items():
        try:
            versions[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:  # the espnet-s3prl fork is another distribution of the same import name
            versions[name] = "unknown"
    return versions
