"""sweep.yaml as dataclasses: everything that can be told from the file alone is checked here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.runner.config import apply_overrides, parse_interface, read_yaml
from s3prl_interfaces.schema import read_block

LEARNING_RATE = "config.optimizer.lr"
"""The one value that becomes lanes: others change what lanes share."""

OWN = {
    "mode": "a sweep trains",
    "downstream": "name tasks under `tasks`",
    "upstream": "name upstreams under `upstreams`",
    "interface": "name interfaces under `interfaces`",
    "seed": "name seeds under `seeds`",
    "seeds": "name seeds under `seeds`",
    "lr": f"name learning rates under `values`, `{LEARNING_RATE}`",
    "config": "name files under `config`",
    "expname": "a sweep's folder is its `name` or `dir`",
    "expdir": "a sweep's folder is its `name` or `dir`",
    "auto_resume": "a sweep continues what is unfinished",
    "all_folds": "a sweep trains every fold",
    "past_exp": "a sweep continues its own runs only",
    "evaluate_split": "a sweep trains",
    "backend": "a sweep trains on one device a run",
    "local_rank": "a sweep trains on one device a run",
    "push_to_hf_hub": "it is not supported",
    "hf_hub_org": "it is not supported",
}
"""Arguments of a run that a sweep sets itself, and what to do instead."""

_OWN_VALUES = {
    "config.interface": OWN["interface"],
    "config.interfaces": OWN["interface"],
    "config.upstream": OWN["upstream"],
}


@dataclass(frozen=True)
class UpstreamEntry:
    """One of ``upstreams``: a name as ``-u`` takes it (None: the config's own), and flags of its own."""

    name: str | None
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepSpec:
    """The keys of sweep.yaml."""

    tasks: list[str]
    """As ``-d`` takes them."""
    name: str | None = None
    """Runs go to ``result/downstream/<name>/``; or ``dir``."""
    dir: str | None = None
    upstreams: list[Any] = field(default_factory=lambda: [None])
    """Names, or mappings with ``name`` and further arguments of a run; left out: the config's ``upstream``."""
    interfaces: list[Any] = field(default_factory=list)
    """Names, names with options, or mappings with ``name`` and options; left out: the config's own."""
    seeds: list[int] = field(default_factory=lambda: [1337])
    config: list[str] = field(default_factory=list)
    """YAML files as for ``-c``, in which ``{task}`` stands for the task; left out: the task's own."""
    values: dict[str, Any] = field(default_factory=dict)
    """``config.a.b`` or ``args.x`` -> a list of values; the product of all is taken."""
    flags: dict[str, Any] = field(default_factory=dict)
    """Arguments of every run, such as ``device`` and ``data_seed``."""
    submitit: dict[str, Any] = field(default_factory=dict)
    """Parameters of submitit's executor, such as ``timeout_min``, ``gpus_per_node`` and ``slurm_partition``."""

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return Path(self.dir) if self.dir is not None else Path("result") / "downstream" / str(self.name)

    @property
    def upstream_entries(self) -> list[UpstreamEntry]:
        """``upstreams``, whichever way each is written."""
        return [_upstream(entry) for entry in self.upstreams]

    @property
    def interface_texts(self) -> list[str]:
        """``interfaces`` as ``--interface`` takes them."""
        return [interface_text(entry) for entry in self.interfaces]


def read_spec(path: Path) -> SweepSpec:
    """Read sweep.yaml.

    Raises:
        ConfigError: it cannot be read, a key is unknown or missing, or a value cannot be used.
    """
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: give the YAML file of a sweep.")
    spec = read_block(SweepSpec, read_yaml(path), str(path))
    if (spec.name is None) == (spec.dir is None):
        raise ConfigError(f"{path}: where should the runs go? Give either `name` or `dir`.")
    for key in ("tasks", "upstreams", "seeds"):
        _check_list(getattr(spec, key), f"{path}.{key}")
    for seed in spec.seeds:
        if not 0 <= seed < 2**32:
            raise ConfigError(f"`{path}.seeds` must be from 0 to 2**32 - 1, but one is {seed}.")
    _check_arguments(spec.flags, f"{path}.flags")
    for index, entry in enumerate(spec.upstreams):
        where = f"{path}.upstreams[{index}]"
        _check_arguments(_upstream(entry, where).flags, where)
    for index, entry in enumerate(spec.interfaces):
        interface_text(entry, f"{path}.interfaces[{index}]")
    _check_distinct(spec.interface_texts, f"{path}.interfaces")
    for key, values in spec.values.items():
        _check_values(str(key), values, f"{path}.values.{key}")
    return spec


def interface_text(entry: object, where: str = "interfaces") -> str:
    """An interface as ``--interface`` takes it.

    Raises:
        ConfigError: it is no name and no mapping with one, or an option cannot be written on a command line.
    """
    name, options = parse_interface(entry) if isinstance(entry, (str, Mapping)) else ("", {})
    if not name:
        raise ConfigError(f"`{where}` must be a name or a mapping with a `name`, but is {entry!r}.")
    if not options:
        return name
    text = f"{name}:" + ",".join(f"{key}={value_text(value, where)}" for key, value in options.items())
    with suppress(ConfigError):
        if parse_interface(text) == (name, options):
            return text
    raise ConfigError(
        f"`{where}`: options like {options!r} cannot go through a command line; put them as `interface` into a YAML "
        "file of `config`."
    )


def assignment(key: str, value: Any, where: str) -> str:
    """One assignment of ``-o``.

    Raises:
        ConfigError: the value would not come out of it as it went in.
    """
    text = f"{key}={value_text(value, where)}"
    found: Any = {}
    with suppress(ConfigError):
        apply_overrides(text, RunArguments(mode="train"), found)
        for part in key.split(".")[1:]:
            found = found[part]
        if found == value and type(found) is type(value):
            return text
    raise ConfigError(f"`{where}`: {value!r} cannot go through a command line; put it into a YAML file of `config`.")


def value_text(value: Any, where: str) -> str:
    """A value as YAML on one line (JSON is YAML).

    Raises:
        ConfigError: it is a date or another thing that JSON does not know.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ": "))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"`{where}`: {value!r} is no number, text, list or mapping.") from error


def _upstream(entry: object, where: str = "upstreams") -> UpstreamEntry:
    if entry is None or isinstance(entry, str):
        return UpstreamEntry(entry)
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"`{where}` must be a name or a mapping with a `name`, but is {entry!r}.")
    return UpstreamEntry(entry["name"], {key: value for key, value in entry.items() if key != "name"})


def _check_values(key: str, values: object, where: str) -> None:
    if not isinstance(values, list):
        raise ConfigError(f"`{where}` must be a list of values, but is {values!r}.")
    _check_list(values, where)
    root, _, rest = key.partition(".")
    if root not in ("config", "args") or not all(rest.split(".")):
        raise ConfigError(f"`{where}`: a key of `values` must read `config.a.b` or `args.x`.")
    if key in _OWN_VALUES:
        raise ConfigError(f"`{where}`: {_OWN_VALUES[key]}.")
    for value in values:
        if root == "args":
            _check_arguments({rest: value}, where.removesuffix(f".{rest}"))
        elif key == LEARNING_RATE:
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
                raise ConfigError(f"`{where}` must be numbers above 0, but one is {value!r}.")
        else:
            assignment(key, value, where)


def _check_arguments(block: Mapping[str, Any], where: str) -> None:
    """Names and types of a run's arguments."""
    known = [entry.name for entry in fields(RunArguments) if entry.name not in OWN]
    for key in block:
        if key in OWN:
            raise ConfigError(f"`{where}.{key}`: {OWN[key]}.")
        if key not in known:
            raise ConfigError(unknown_name(f"key in `{where}`:", key, known))
    read_block(RunArguments, {"mode": "train", **block}, where)


def _check_list(values: Sequence[Any], where: str) -> None:
    if not values:
        raise ConfigError(f"`{where}` is empty: name one or more, or leave it out.")
    _check_distinct(values, where)


def _check_distinct(values: Sequence[Any], where: str) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ConfigError(f"`{where}` names {value!r} twice.")
