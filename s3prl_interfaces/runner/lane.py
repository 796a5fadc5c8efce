"""A lane: one interface with its task head, optimizer and folder. A run is a list of lanes over one upstream."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from downstream_tasks.registry import load_expert
from s3prl_interfaces.errors import CheckpointError
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE, InterfaceFeaturizer
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.checkpoint import load_weights, save_checkpoint, step_checkpoints
from s3prl_interfaces.runner.config import RunnerConfig, interface_block
from s3prl_interfaces.runner.metric_logger import MetricLogger
from s3prl_interfaces.runner.optimization import build_optimizer, build_scheduler, build_specaug
from s3prl_interfaces.runner.randomness import seed_everything

log = logging.getLogger(__name__)


class Lane:
    """One interface and one task head.

    Args:
        folder: where this lane writes.
        args: the run's arguments.
        config: the merged config, its ``interface`` block this lane's.
        runner: the config's ``runner`` block.
        upstream: read for its sizes, not kept.
        device: where the weights live.
        label_state: what a checkpoint holds of the task's labels: the head is then made without its corpus.

    Raises:
        ConfigError: a block of the config does not fit the task, the interface or the upstream.
    """

    def __init__(
        self,
        folder: Path,
        args: RunArguments,
        config: dict[str, Any],
        runner: RunnerConfig,
        upstream: nn.Module,
        device: torch.device,
        label_state: Any = None,
    ) -> None:
        self.folder = folder
        self.args = args
        self.config = config
        self.runner = runner
        name, self.interface_options = interface_block(config)
        self.interface_name = name or DEFAULT_INTERFACE
        # Seeded here, not only before the upstream: how much randomness an upstream's constructor uses must not
        # decide how the interface and the head start.
        seed_everything(args.seed)
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
        blocks = {key: value for key, value in config.items() if key != "interface"}
        known = {} if label_state is None else {"label_state": label_state}
        # S3PRL's experts are modules with methods that no type knows.
        self.head: Any = expert(
            upstream_dim=self.featurizer.output_dim,
            upstream_rate=self.featurizer.downsample_rate,
            **{**args.to_dict(), **blocks, "expdir": str(folder), **known},
        ).to(device)
        if args.upstream_layer_selection is not None:  # S3PRL's `-l` is our single_layer
            self.interface_name, self.interface_options = (
                "single_layer",
                {"layer": args.upstream_layer_selection},
            )
        if args.upstream_feature_normalize:
            self.interface_options = {**self.interface_options, "normalize": True}
        self.specaug: nn.Module | None = None
        self.logger: MetricLogger
        self.records: dict[str, list[Any]] = defaultdict(list)
        self.batch_ids: list[int] = []
        self.best: str | None = None
        self.skipped_updates = 0

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
        """Features of one batch through the head; fills ``kwargs['records']`` as S3PRL's experts do."""
        features = self.featurizer(wavs, output)
        if self.head.training and self.specaug is not None:
            features, _ = self.specaug(features)
        return self.head(split, features, *others, **kwargs)

    def update(self, step: int) -> None:
        """One optimizer step. Gradients that are not finite are dropped: the weights stay, the step counts."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.runner.gradient_clipping)
        # With fp16 the scaler does the skipping, and lowers its scale.
        if self.runner.fp16 or torch.isfinite(norm):
            self.scaler.step(self.optimizer)
        else:
            self.skipped_updates += 1
            log.warning("Step %d: the gradient norm is %s; this update is skipped.", step, norm.item())
        self.scaler.update()
        self.optimizer.zero_grad()
        if self.scheduler is not None:
            self.scheduler.step()

    def log_training(self, split: str, step: int, batches: int) -> None:
        """Hand the records since the last time to the expert's ``log_records`` and start anew."""
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
        """This lane's part of a checkpoint."""
        states: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        if hasattr(self.head, "label_state"):
            states["Labels"] = self.head.label_state()
        states["Optimizer"] = self.optimizer.state_dict()
        if self.scheduler is not None:
            states["Scheduler"] = self.scheduler.state_dict()
        states["Scaler"] = self.scaler.state_dict()
        states["Best"] = self.best
        states["SkippedUpdates"] = self.skipped_updates
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
        self.best = states.get("Best")
        self.skipped_updates = states.get("SkippedUpdates", 0)

    def save(self, names: Sequence[str], states: Mapping[str, Any]) -> None:
        """Write one state under several names, then drop the oldest ``states-*`` beyond ``max_keep``."""
        for name in dict.fromkeys(names):
            save_checkpoint(self.folder / name, states)
        for old in step_checkpoints(self.folder)[: -self.runner.max_keep]:
            old.unlink()
