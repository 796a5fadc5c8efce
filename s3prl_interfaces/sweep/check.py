"""What can be wrong with a cell and is found without loading an upstream or a corpus."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.featurizer import DEFAULT_INTERFACE
from s3prl_interfaces.interfaces import get_spec, interface_options
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.config import interface_block
from s3prl_interfaces.upstream import TRANSFORMERS, list_upstreams


def check_interface(config: Mapping[str, Any]) -> None:
    """The interface is known, and so are its options.

    Raises:
        ConfigError: one is not.
    """
    name, options = interface_block(config)
    name = name or DEFAULT_INTERFACE
    try:
        known, takes_any = _options_of(name)
    except (ValueError, ImportError) as error:
        raise ConfigError(str(error)) from error
    for option in options:
        if option not in known and option != "normalize" and not takes_any:
            raise ConfigError(unknown_name(f"option of interface {name!r}:", option, [*known, "normalize"]))


def check_upstream(args: RunArguments) -> None:
    """The upstream is named, its name is known, and its files are there.

    Raises:
        ConfigError: that is not so.
    """
    name = args.upstream
    if not name:
        raise ConfigError("Which upstream? Name one under `upstreams` (see `s3prl-interfaces list upstreams`).")
    if args.hub != "torch" or name.startswith(TRANSFORMERS):
        return
    source, colon, _ = name.rpartition(":")
    if colon or name.endswith(".py"):
        if source.endswith(".py") and not Path(source).is_file():
            raise ConfigError(f"Upstream {name!r}: there is no file {source}.")
        return
    if name not in _names():
        near = difflib.get_close_matches(name, _names(), n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"Unknown upstream {name!r}.{hint} `s3prl-interfaces list upstreams` prints all.")
    ckpt = args.upstream_ckpt
    if ckpt is not None and name.endswith("_local") and "://" not in ckpt and not Path(ckpt).is_file():
        raise ConfigError(f"Upstream {name!r}: there is no checkpoint file {ckpt} (`upstream_ckpt`).")


@cache  # plug-ins are looked for each time
def _options_of(name: str) -> tuple[frozenset[str], bool]:
    """The options of an interface, and whether it takes any others."""
    parameters = inspect.signature(get_spec(name).cls).parameters.values()
    return frozenset(interface_options(name)), any(one.kind is one.VAR_KEYWORD for one in parameters)


@cache
def _names() -> tuple[str, ...]:
    return tuple(list_upstreams())
