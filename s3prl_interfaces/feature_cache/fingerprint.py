"""Whether two upstreams are the same: a hash of everything that decides what comes out of one."""

import functools
import hashlib
import json
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

FORMAT = 1
"""Raised whenever what is stored changes its meaning."""

_DEPTH = 6  # of values within values
_LIBRARIES = ("torch", "torchaudio", "transformers", "s3prl", "s3prl-interfaces")


def fingerprint(upstream: nn.Module, selection: object) -> str:
    """Hash an upstream, 32 hexadecimal digits.

    What goes in: every weight and buffer; the plain values among the attributes of every module (sizes, rates,
    configurations, whether it normalises); the source files of the modules' classes; the versions of the libraries.
    A path among the attributes counts, so a moved checkpoint is computed again rather than trusted.

    Args:
        upstream: in the mode in which it is used.
        selection: what of its output is stored, and how.
    """
    hashed = hashlib.blake2b(digest_size=16)
    about = {
        "format": FORMAT,
        "selection": repr(selection),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "sources": [_source(name) for name in sorted({type(module).__module__ for module in upstream.modules()})],
        "modules": {
            name: [type(module).__qualname__, _attributes(module)] for name, module in upstream.named_modules()
        },
    }
    hashed.update(json.dumps(about, sort_keys=True).encode())
    for name, tensor in (*upstream.named_parameters(), *upstream.named_buffers()):
        hashed.update(f"{name} {_tensor(tensor)}".encode())
    return hashed.hexdigest()


def _attributes(module: nn.Module) -> dict[str, Any]:
    # Those of nn.Module itself begin with an underscore: parameters, buffers, children and hooks, which are elsewhere.
    # What old weight normalisation makes of `weight_g` is computed anew whenever it is used.
    weights = dict(module.named_parameters(recurse=False))
    own = {key: value for key, value in vars(module).items() if not key.startswith("_") and f"{key}_g" not in weights}
    return {key: _plain(value) for key, value in sorted(own.items())}


def _plain(value: Any, depth: int = 0) -> Any:
    """A value as JSON has it; of what is no plain value the name of its type."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        return _tensor(value)
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if depth == _DEPTH or isinstance(value, nn.Module | RemovableHandle):  # a handle has a running number
        return kind
    inside = functools.partial(_plain, depth=depth + 1)
    if isinstance(value, Mapping):
        return [kind, sorted(([str(key), inside(one)] for key, one in value.items()), key=lambda pair: pair[0])]
    if isinstance(value, list | tuple):
        return [kind, [inside(one) for one in value]]
    if isinstance(value, set | frozenset):
        return [kind, sorted(map(str, value))]
    if isinstance(value, Path | torch.dtype):
        return [kind, str(value)]
    if hasattr(value, "to_dict"):  # a configuration of transformers
        return [kind, inside(value.to_dict())]
    if callable(value) or not hasattr(value, "__dict__"):
        return kind
    return [kind, inside(vars(value))]


def _tensor(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{tuple(tensor.shape)} {tensor.dtype} {hashlib.blake2b(data.numpy().data, digest_size=16).hexdigest()}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _source(module: str) -> str:
    """A hash of a module's file, so that an upstream of the user's own counts as it is now."""
    file = getattr(sys.modules.get(module), "__file__", None)
    content = Path(file).read_bytes() if file is not None else b""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
