"""Interfaces between self-supervised speech models and downstream tasks, for S3PRL.

The names below are imported when they are first used, so that commands which need no PyTorch start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from s3prl_interfaces.interfaces import build_interface, list_interfaces, register_interface
    from s3prl_interfaces.plugin import install
    from s3prl_interfaces.runner import load_experiment

__version__ = "0.1.0"
__all__ = ["__version__", "build_interface", "install", "list_interfaces", "load_experiment", "register_interface"]

_HOMES = {
    "build_interface": "s3prl_interfaces.interfaces",
    "install": "s3prl_interfaces.plugin",
    "list_interfaces": "s3prl_interfaces.interfaces",
    "load_experiment": "s3prl_interfaces.runner",
    "register_interface": "s3prl_interfaces.interfaces",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
