"""Optimizer, learning-rate schedule and SpecAugment: S3PRL's own, chosen by name without evaluating any string."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.s3prl_compat import prepare

SCHEDULES = tuple(
    f"{shape}_schedule_with_warmup"
    for shape in (
        "linear",
        "cosine",
        "cosine_with_hard_restarts",
        "constant_decay",
        "sqrt_decay",
        "noam_decay",
        "polynomial_decay",
    )
)
OPTIMIZERS = (
    "TorchOptim",
    "Adam",
    "AdamW",
    "BertAdam_with_schedule",
    "AdamW_with_schedule",
    "Lamb_with_schedule",
)


def build_optimizer(modules: Sequence[nn.Module], block: Mapping[str, Any], total_steps: int) -> Optimizer:
    """The config's ``optimizer`` block (``s3prl/optimizers.py``) over the parameters of ``modules``, in that order.

    Raises:
        ConfigError: an unknown name, or an option that the optimizer does not take.
    """
    prepare()
    from s3prl import optimizers

    name = _known("optimizer", block, OPTIMIZERS)
    if name == "TorchOptim":
        torch_name = block.get("torch_optim_name")
        known = [key for key, value in vars(torch.optim).items() if inspect.isclass(value) and key != "Optimizer"]
        if torch_name not in known:
            raise ConfigError(unknown_name("`optimizer.torch_optim_name`", torch_name, known))
    elif name in ("Adam", "AdamW") and block.keys() - {"name", "lr"}:
        # S3PRL takes further keys here and drops them.
        extra = ", ".join(sorted(block.keys() - {"name", "lr"}))
        raise ConfigError(f"`optimizer: {name}` reads `lr` alone, not {extra}: use TorchOptim with torch_optim_name.")
    try:
        return optimizers.get_optimizer(list(modules), total_steps, dict(block))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`optimizer`: {dict(block)}: {error}.") from error


def build_scheduler(optimizer: Optimizer, block: Mapping[str, Any] | None, total_steps: int) -> LRScheduler | None:
    """The config's ``scheduler`` block (``s3prl/schedulers.py``), or None.

    Raises:
        ConfigError: an unknown name, or an option that the schedule does not take.
    """
    if not block:
        return None
    from s3prl import schedulers

    _known("scheduler", block, SCHEDULES)
    try:
        return schedulers.get_scheduler(optimizer, total_steps, dict(block))
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"`scheduler`: {dict(block)}: {error}.") from error


def build_specaug(block: Mapping[str, Any] | None) -> nn.Module | None:
    """The config's ``specaug`` block (``s3prl/downstream/specaug.py``), or None.

    Raises:
        ConfigError: an option that it does not take.
    """
    if not block:
        return None
    prepare()
    from s3prl.downstream.specaug import SpecAug

    try:
        return SpecAug(**block)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"`specaug`: {error}.") from error


def _known(where: str, block: Any, names: Sequence[str]) -> str:
    if not isinstance(block, Mapping) or "name" not in block:
        raise ConfigError(f"`{where}` must be a mapping with a `name`, but is {block!r}.")
    if block["name"] not in names:
        raise ConfigError(unknown_name(f"`{where}.name`", block["name"], names))
    return block["name"]
