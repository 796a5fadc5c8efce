"""A lane: one interface with its task head, optimizer and folder. A run is a list of lanes over one upstream.

Whatever a lane draws at random (initialisation, dropout, SpecAugment) comes from a stream of its own, so that it is the
same alone and beside others.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstream_tasks.registry import load_expert
from s3prl_interfaces.errors import CheckpointError, UserError
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE, InterfaceFeaturizer
from s3prl_interfaces.results.problems import write_failure
from s3prl_interfaces.runner import distributed
from s3prl_interfaces.runner.checkpoint import is_plain_data, load_weights, save_checkpoint, step_checkpoints
from s3prl_interfaces.runner.config import RunnerConfig, interface_block
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.optimization import build_optimizer, build_scheduler, build_specaug
from s3prl_interfaces.runner.plan import Plan
from s3prl_interfaces.runner.randomness import Stream, capture, preserved, seed_everything

log = logging.getLogger(__name__)

PATIENCE = 50
"""Updates in a row whose gradients may be not finite. With fp16 some 20 are normal at first, until the scale fits."""


class Lane:
    """One interface and one task head.

    Args:
        folder: where this lane writes.
        plan: arguments and config as of a run of this lane alone.
        runner: the config's ``runner`` block.
        upstream: read for its sizes, not kept.
        device: where the weights live.
        label_state: what a checkpoint holds of the task's labels: the head is then made without its corpus.
        beside: another lane of the same run, whose corpus is shared where the task's expert can.

    Raises:
        ConfigError: a block of the config does not fit the task, the interface or the upstream.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        runner: RunnerConfig,
        upstream: nn.Module,
        device: torch.device,
        label_state: Any = None,
        beside: Lane | None = None,
    ) -> None:
        self.folder = folder
        self.args = plan.args
        self.config = plan.config
        self.start = plan.start
        self.runner = runner
        name, self.interface_options = interface_block(self.config)
        self.interface_name = name or DEFAULT_INTERFACE
        with preserved(self.args.seed):
            self._build(upstream, device, label_state, beside)
            if not distributed.is_first():  # the same weights, but not the same dropout
                seed_everything(self.args.seed + distributed.rank())
            self.stream = Stream(capture())
        self.specaug: nn.Module | None = None
        self.logger: MetricLogger
        self.records: dict[str, list[Any]] = defaultdict(list)
        self.batch_ids: list[int] = []
        self.best: str | None = None
        self.wanted: list[str] = []
        """Names of checkpoints that are due at this step."""
        self.skipped_updates = 0
        self._skipped_in_a_row = 0
        self.has_company = False
        """Whether other lanes go on if this one fails."""
        self.failed: str | None = None
        """Why this lane was stopped."""

    def _build(self, upstream: nn.Module, device: torch.device, label_state: Any, beside: Lane | None) -> None:
        args = self.args
        self.featurizer = InterfaceFeaturizer(
            upstream,
            feature_selection=args.upstream_feature_selection,
            upstream_device=str(device),
            layer_selection=args.upstream_layer_selection,
            normalize=args.upstream_feature_normalize,
            interface=self.interface_name,
            interface_options=self.interface_options,
        ).to(device)
        expert = load_expert(args.downstream or "")
        blocks = {key: value for key, value in self.config.items() if key != "interface"}
        shares = beside is not None and hasattr(beside.head, "share_corpus")
        if beside is not None and shares:
            label_state = beside.head.label_state()
        known = {} if label_state is None else {"label_state": label_state}
        # To an expert, a seed is that of the data. S3PRL's experts are modules with methods that no type knows.
        told = {**args.to_dict(), **blocks, "seed": args.order_seed, "expdir": str(self.folder), **known}
        self.head: Any = expert(
            upstream_dim=self.featurizer.output_dim, upstream_rate=self.featurizer.downsample_rate, **told
        ).to(device)
        if beside is not None and shares:
            beside.head.share_corpus(self.head)
        if args.upstream_layer_selection is not None:  # S3PRL's `-l` is our single_layer
            self.interface_name, self.interface_options = (
                "single_layer",
                {"layer": args.upstream_layer_selection},
            )
        if args.upstream_feature_normalize:
            self.interface_options = {**self.interface_options, "normalize": True}

    @property
    def name(self) -> str:
        """What messages call it: its folder among several, else its interface."""
        return self.folder.name if self.has_company else self.interface_name

    @contextmanager
    def guard(self, step: int) -> Iterator[None]:
        """What is done for this lane inside: an exception stops this lane alone if others go on."""
        try:
            yield
        except Exception as error:
            if not self.has_company:
                raise
            self.stop(step, error)

    def stop(self, step: int, error: Exception) -> None:
        """Leave this lane behind: it failed after update ``step``."""
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        self.failed = " ".join(reason.split())
        log.error("%s is stopped at step %d, the other lanes go on: %s", self.name, step, self.failed)
        log.debug("%s:", self.name, exc_info=error)
        write_failure(self.folder, step, self.failed)
        # Its memory is the others'.
        self.records.clear()
        if hasattr(self, "optimizer"):
            self.optimizer.zero_grad()
            self.optimizer.state.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained here, under the names that S3PRL's checkpoints use."""
        return {"Featurizer": self.featurizer, "Downstream": self.head}

    def start_training(self, upstream: nn.Module | None) -> None:
        """Make what only training needs, except ``logger``, which makes the folder.

        Args:
            upstream: the upstream if it is fine-tuned, else None.
        """
        modules = [*([upstream] if upstream is not None else []), *self.modules.values()]
        self.trained = [parameter for module in modules for parameter in module.parameters()]
        self._mean_gradients = distributed.MeanGradients(self.trained) if distributed.world_size() > 1 else None
        self.optimizer = build_optimizer(modules, self.config["optimizer"], self.runner.total_steps)
        self.scheduler = build_scheduler(self.optimizer, self.config.get("scheduler"), self.runner.total_steps)
        self.specaug = build_specaug(self.config.get("specaug"))
        self.scaler = torch.amp.GradScaler(next(self.head.parameters()).device.type, enabled=self.runner.fp16)

    def loss(
        self,
        split: str,
        wavs: Sequence[Tensor],
        output: Mapping[str, Any],
        others: Sequence[Any],
        **kwargs: Any,
    ) -> Tensor:
        """Features of one batch through the head; fills ``kwargs['records']`` as S3PRL's experts do.

        Call it within a random stream of the lane's own.
        """
        features = self.featurizer(wavs, output)
        if self.head.training and self.specaug is not None:
            features, _ = self.specaug(features)
        return self.head(split, features, *others, **kwargs)

    def mark(self) -> None:
        """Remember where an update begins."""
        self._marked = (
            self.stream.state,
            {key: len(values) for key, values in self.records.items()},
            len(self.batch_ids),
        )

    def rewind(self) -> None:
        """Forget what was done for this update, to do it once more."""
        self.stream.state, lengths, batches = self._marked
        for key, values in self.records.items():
            del values[lengths.get(key, 0) :]
        del self.batch_ids[batches:]
        self.optimizer.zero_grad()

    def update(self, step: int) -> float | None:
        """One optimizer step. Gradients that are not finite are dropped: the weights stay, the step counts.

        Returns:
            The norm of gradients that were dropped; None if they were not. With fp16 they are not told: it is how the
            scaler finds its scale.

        Raises:
            UserError: they were not finite for :data:`PATIENCE` updates in a row: the weights will not change any more.
        """
        if self._mean_gradients is not None:
            self._mean_gradients.reduce()
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.runner.gradient_clipping)
        finite = bool(torch.isfinite(norm))
        self._skipped_in_a_row = 0 if finite else self._skipped_in_a_row + 1
        # With fp16 the scaler does the skipping, and lowers its scale.
        if self.runner.fp16 or finite:
            self.scaler.step(self.optimizer)
        else:
            self.skipped_updates += 1
        if self._skipped_in_a_row == PATIENCE:
            raise UserError(
                f"The gradients of {self.name} were not finite for {PATIENCE} updates in a row, the last one at step "
                f"{step}: lower the learning rate (`-o config.optimizer.lr=...` or `--lr`), or look for broken data."
            )
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scheduler is not None:
            self.scheduler.step()
        return None if self.runner.fp16 or finite else norm.item()

    def log_training(self, split: str, step: int, batches: int) -> None:
        """Hand the records since the last time to the expert's ``log_records`` and start anew.

        Of several processes, the first one tells of its own batches.
        """
        if distributed.is_first():
            self.head.log_records(
                split,
                records=self.records,
                logger=self.logger,
                global_step=step,
                batch_ids=self.batch_ids,
                total_batch_num=batches,
            )
            self.logger.take(split)
        self.records, self.batch_ids = defaultdict(list), []

    def states(self) -> dict[str, Any]:
        """This lane's part of a checkpoint. Every process must ask for it; the first one's is whole."""
        states: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        if hasattr(self.head, "label_state"):
            states["Labels"] = self.head.label_state()
        states["Optimizer"] = self.optimizer.state_dict()
        if self.scheduler is not None:
            states["Scheduler"] = self.scheduler.state_dict()
        states["Scaler"] = self.scaler.state_dict()
        states["Random"] = distributed.gathered(dict(self.stream.state))
        states["Best"] = self.best
        states["Wanted"] = self.wanted
        states["SkippedUpdates"] = self.skipped_updates
        if is_plain_data(self.records):
            states["Records"] = dict(self.records), self.batch_ids
        return states

    def load_weights(self, states: Mapping[str, Any], path: Path) -> None:
        """Load the interface and the head from a checkpoint; S3PRL leaves a featurizer without parameters empty."""
        for name, module in self.modules.items():
            if states.get(name):
                load_weights(module, states[name], name, path)

    def load_training(self, states: Mapping[str, Any], path: Path) -> None:
        """Continue the optimizer and its schedule; call after :meth:`start_training`.

        Raises:
            CheckpointError: the optimizer's state is of another shape, or of another optimizer.
        """
        try:
            self.optimizer.load_state_dict(states["Optimizer"])
            missing = self.optimizer.defaults.keys() - self.optimizer.param_groups[0].keys()
            if missing:  # PyTorch would find out in the first step
                raise ValueError(f"it is of an optimizer without {', '.join(sorted(missing))}")
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"The optimizer state of {path} does not fit this run: {error}.") from error
        if self.scheduler is not None and states.get("Scheduler"):
            self.scheduler.load_state_dict(states["Scheduler"])
        if states.get("Scaler"):
            self.scaler.load_state_dict(states["Scaler"])
        self.stream.state = distributed.own(states.get("Random")) or self.stream.state
        self.best = states.get("Best")
        self.wanted = states.get("Wanted", [])
        self.skipped_updates = states.get("SkippedUpdates", 0)
        if "Records" in states and distributed.is_first():
            records, self.batch_ids = states["Records"]
            self.records = defaultdict(list, records)

    def save(self, names: Sequence[str], states: Mapping[str, Any]) -> None:
        """Write one state under several names; of several processes, the first one does."""
        if distributed.is_first():
            for name in dict.fromkeys(names):
                save_checkpoint(self.folder / name, states)

    def drop_old(self) -> None:
        """Remove the oldest ``states-*`` beyond ``max_keep``."""
        if distributed.is_first():
            for old in step_checkpoints(self.folder)[: -self.runner.max_keep]:
                old.unlink()


def living(lanes: Sequence[Lane]) -> list[Lane]:
    """The lanes that have not failed.

    Raises:
        UserError: all have.
    """
    found = [lane for lane in lanes if lane.failed is None]
    if not found:
        raise UserError("Every lane has failed: " + "; ".join(f"{lane.name}: {lane.failed}" for lane in lanes))
    return found
