"""The arguments of a run: S3PRL's flags under S3PRL's names (``s3prl/run_downstream.py``), and ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3prl_interfaces.errors import ConfigError

# What a resumed run takes from the new command line; everything else comes from the checkpoint, as in S3PRL.
NOT_FROM_CHECKPOINT = (
    "mode",
    "evaluate_split",
    "override",
    "backend",
    "local_rank",
    "past_exp",
    "auto_resume",
    "all_folds",
    "device",
    "verbose",
)


@dataclass(kw_only=True)
class RunArguments:
    """What the command line of a run says; the field names are S3PRL's."""

    mode: str
    """``train``, ``evaluate`` or ``inference``."""
    downstream: str | None = None
    upstream: str | None = None
    interface: list[str] = field(default_factory=list)
    """Given by ``--interface``: names, or names with options (``hconv:kernel_size=3``). Several are trained side by
    side. Empty: the config's ``interfaces`` or ``interface``, else ``weighted_sum``."""
    normalize: str | None = None
    """``off``, ``on`` or ``both``: layer-normalise the hidden states first; ``both`` makes every lane twice."""
    seeds: list[int] = field(default_factory=list)
    """Train every lane with each of these."""
    lr: list[float] = field(default_factory=list)
    """Train every lane with each of these for ``optimizer.lr``."""
    config: list[str] = field(default_factory=list)
    """YAML files, merged left to right; empty: ``configs/<task>.yaml``."""
    override: str | None = None
    evaluate_split: str = "test"
    """``evaluate``: the split. ``inference``: an audio file, or a folder of them."""
    expname: str | None = None
    expdir: str | None = None
    past_exp: str | None = None
    init_ckpt: str | None = None
    auto_resume: bool = False
    upstream_ckpt: str | None = None
    upstream_model_config: str | None = None
    upstream_refresh: bool = False
    upstream_trainable: bool = False
    upstream_feature_selection: str = "hidden_states"
    upstream_layer_selection: int | None = None
    upstream_feature_normalize: bool = False
    upstream_model_name: str = "model.pt"
    upstream_revision: str | None = None
    upstream_unpadded: bool = False
    """Run utterances one at a time, of an upstream of transformers (``hf:``)."""
    hub: str = "torch"
    downstream_variant: str | None = None
    all_folds: bool = False
    """Train every fold of a cross-validated task, one after another, each in a folder of its own."""
    seed: int = 1337
    """Of the weights' initialisation, dropout and SpecAugment."""
    data_seed: int | None = None
    """Of the order of the data and its crops, and of an upstream's own random numbers; None: ``seed``. The lanes of a
    run share it."""
    device: str = "auto"
    cache_dir: str | None = None
    disable_cudnn: bool = False
    backend: str = "nccl"
    local_rank: int | None = None
    push_to_hf_hub: bool = False
    hf_hub_org: str | None = None
    verbose: bool = False

    @property
    def order_seed(self) -> int:
        """The seed of the data: ``data_seed``, else ``seed``, as in S3PRL."""
        return self.seed if self.data_seed is None else self.data_seed

    def to_dict(self) -> dict[str, Any]:
        """A plain dict, as it goes into checkpoints and ``args.yaml`` (shallow: values stay as they are)."""
        return {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}

    @property
    def folder(self) -> Path:
        """The experiment directory: ``-p``, else ``result/downstream/<-n>``."""
        if self.expdir is not None:
            return Path(self.expdir)
        if self.expname is None:
            raise ConfigError("Where should the run go? Give it a name with `-n NAME` or a folder with `-p DIR`.")
        return Path("result") / "downstream" / self.expname

    def resumed_from(self, stored: Mapping[str, Any]) -> RunArguments:
        """These arguments with everything that a checkpoint fixes taken from it (S3PRL's ``-e``).

        A key of an S3PRL checkpoint that means nothing here is left out.
        """
        known = {entry.name for entry in dataclasses.fields(self)}
        kept = {key: value for key, value in stored.items() if key in known and key not in NOT_FROM_CHECKPOINT}
        for key in ("config", "interface"):  # S3PRL stores one path, or none
            if key in kept and not isinstance(kept[key], list):
                kept[key] = [] if kept[key] is None else [str(kept[key])]
        return dataclasses.replace(self, **kept)
