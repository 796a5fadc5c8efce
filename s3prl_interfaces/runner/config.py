"""A run's config: YAML files merged left to right, ``-o`` overrides, and the blocks that the runner reads."""

import contextlib
import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.plain_yaml import PlainYAMLError, read_plain_yaml
from s3prl_interfaces.runner.arguments import RunArguments
from s3prl_interfaces.schema import read_block

BLOCKS = ("runner", "optimizer", "scheduler", "specaug", "downstream_expert", "interface", "interfaces", "upstream")


@dataclass(frozen=True, kw_only=True)
class FeatureCacheConfig:
    """Where the hidden states of a frozen upstream are kept, so that it sees an utterance once."""

    dir: str
    """A folder, for any number of upstreams, tasks and runs."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_bytes: int | None = None
    """When the files in ``dir`` would be larger than this together, nothing more is stored; None: no limit."""

    def __post_init__(self) -> None:
        """Refuse a cache that can hold nothing."""
        if self.max_bytes is not None and self.max_bytes <= 0:
            raise ConfigError(f"`runner.feature_cache.max_bytes` must be above 0, but is {self.max_bytes}.")


@dataclass(frozen=True, kw_only=True)
class RunnerConfig:
    """The ``runner`` block. Keys and meaning are S3PRL's (``s3prl/downstream/runner.py``).

    ``bf16``, ``tf32`` and ``feature_cache`` are ours.
    """

    total_steps: int
    """Updates, not micro-batches."""
    gradient_clipping: float = 1.0
    """Largest global L2 norm of the gradients of everything that is trained."""
    gradient_accumulate_steps: int = 1
    """Micro-batches to an update."""
    log_step: int = 100
    eval_step: int = 5000
    save_step: int = 1000
    max_keep: int = 1
    """How many ``states-<step>.ckpt`` stay."""
    eval_dataloaders: list[str] = field(default_factory=lambda: ["dev"])
    train_dataloader: str = "train"
    evaluate_ratio: float = 1.0
    """Share of each split that evaluations during training see. Final scores always come from the whole split."""
    fp16: bool = False
    """Train in float16 where PyTorch's autocast does, with a loss scale."""
    bf16: bool = False
    """Train in bfloat16 where PyTorch's autocast does. Evaluations are in float32 either way."""
    tf32: bool | None = None
    """Whether GPUs round what they multiply to 10 bits of mantissa, in evaluations too; None: as PyTorch does, in
    convolutions and recurrent layers alone."""
    feature_cache: FeatureCacheConfig | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that no run can have."""
        for name in (
            "total_steps",
            "gradient_clipping",
            "gradient_accumulate_steps",
            "log_step",
            "eval_step",
            "save_step",
            "max_keep",
        ):
            if not getattr(self, name) > 0:  # not `<= 0`: nan is refused too
                raise ConfigError(f"`runner.{name}` must be above 0, but is {getattr(self, name)}.")
        if not 0 < self.evaluate_ratio <= 1:
            raise ConfigError(f"`runner.evaluate_ratio` must be in (0, 1], but is {self.evaluate_ratio}.")
        if self.fp16 and self.bf16:
            raise ConfigError("`runner.fp16` and `runner.bf16` are both true: choose one.")


def shipped_configs() -> Path:
    """The folder of the configs that ship with the package: inside a wheel, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def find_config(name: str) -> Path:
    """The path of a YAML file: as given, or shipped (``configs/mini/ic.yaml``, ``mini/ic.yaml``).

    Raises:
        ConfigError: there is no such file.
    """
    path = Path(name)
    parts = path.parts[1:] if path.parts[:1] == ("configs",) else path.parts
    shipped = shipped_configs().joinpath(*parts) if not path.is_absolute() else path
    for candidate in (path, shipped):
        with contextlib.suppress(OSError):  # too long for the disk
            if candidate.is_file():
                return candidate
    raise ConfigError(f"{path.absolute()} does not exist. {unknown_name('shipped config', name, list_configs())}")


def list_configs() -> list[str]:
    """The shipped configs, as ``-c`` takes them from any folder."""
    root = shipped_configs()
    return sorted(f"configs/{file.relative_to(root).as_posix()}" for file in root.rglob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file whose top level is a mapping.

    Raises:
        ConfigError: it cannot be read, is not YAML, or holds something else.
    """
    try:
        content = read_plain_yaml(path.read_text(encoding="utf-8"))
    except PlainYAMLError as error:
        raise ConfigError(f"Config file {path} is not valid YAML: {error}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"Config file {path} cannot be read: {error}.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"Config file {path} must hold a mapping at its top level, but holds {content!r:.60}.")
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top: mappings are merged, everything else is replaced.

    A block whose ``name`` changes is replaced as a whole: the options of one interface or optimizer mean nothing
    to another.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        ):
            merged[key] = merge(old, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def load_config(files: Sequence[str]) -> dict[str, Any]:
    """Merge YAML files left to right."""
    config: dict[str, Any] = {}
    for name in files:
        content = read_yaml(find_config(name))
        if "interface" in content:
            content["interface"] = _as_mapping(content["interface"])
        config = merge(config, content)
    return config


def _as_mapping(interface: object) -> object:
    """``interface: hconv`` as ``interface: {name: hconv}``, so that options can be laid over it."""
    return {"name": interface} if isinstance(interface, str) else interface


def apply_overrides(text: str | None, args: RunArguments, config: dict[str, Any]) -> None:
    """Apply S3PRL's ``-o``: ``config.a.b=value,,args.x=value``, in place.

    Values are read as YAML, never evaluated; ``None`` is null, as in S3PRL's own command lines. An assignment is split
    at its first ``=``, so a value may hold one.

    Raises:
        ConfigError: no ``=``, another root than ``args`` or ``config``, an unknown argument, or a path through
            something that is not a mapping.
    """
    if text is None or text.strip().lower() == "none":
        return
    for assignment in filter(None, (part.strip() for part in text.split(",,"))):
        path, equals, value_text = assignment.partition("=")
        root, *keys = path.strip().split(".")
        shown = f"-o {' '.join(assignment.split())}"
        if not equals or not keys or not all(keys) or root not in ("args", "config"):
            raise ConfigError(f"`{shown}` must read `config.a.b=value` or `args.x=value`.")
        value = _read_value(value_text.strip(), shown)
        if root == "args":
            _set_argument(args, keys, value)
            continue
        if keys == ["interface"]:
            value = _as_mapping(value)
        block = config
        for key in keys[:-1]:
            if block.get(key) is None:  # `scheduler:` alone is a block without keys
                block[key] = {}
            block = block[key]
            if not isinstance(block, dict):
                raise ConfigError(f"`{shown}`: `{key}` is {block!r}, not a block with keys of its own.")
        block[keys[-1]] = value


def _set_argument(args: RunArguments, keys: list[str], value: Any) -> None:
    known = args.to_dict()
    if len(keys) != 1 or keys[0] not in known:
        raise ConfigError(unknown_name("argument in `-o`:", ".".join(keys), known))
    old = known[keys[0]]
    if isinstance(old, list) and not isinstance(value, list):
        value = [] if value is None else [value]
    setattr(
        args,
        keys[0],
        read_block(RunArguments, {"mode": args.mode, keys[0]: value}, "args").to_dict()[keys[0]],
    )


def _read_value(text: str, assignment: str) -> Any:
    if text == "None":
        return None
    try:
        return read_plain_yaml(text)
    except PlainYAMLError as error:
        raise ConfigError(f"`{assignment}`: the value is not valid YAML: {error}.") from error


def interface_block(config: Mapping[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """The name and the options of the config's ``interface``; the name is None where nothing is said.

    ``interface: hconv`` and ``interface: {name: hconv, kernel_size: 5}`` are both read.
    """
    block = config.get("interface")
    if block is None:
        return None, {}
    if isinstance(block, str):
        return block, {}
    if not isinstance(block, Mapping) or not isinstance(block.get("name"), str):
        raise ConfigError(f"`interface` must be a name or a mapping with a `name`, but is {block!r}.")
    return block["name"], _checked_options({key: value for key, value in block.items() if key != "name"})


def _checked_options(options: dict[Any, Any]) -> dict[str, Any]:
    """Refuse now what `results.json` could not hold at the end of a run."""
    for key, value in options.items():
        if not isinstance(key, str):
            raise ConfigError(f"`interface`: the name of an option must be a text, but is {key!r}.")
        try:
            json.dumps(value, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"`interface.{key}` must be a value that JSON can hold, but is {value!r}.") from error
    return options


def parse_interface(text: object) -> tuple[str, dict[str, Any]]:
    """Name and options of ``hconv``, ``hconv:kernel_size=3,stride=2``, ``package.module:Class:option=1`` or a mapping.

    Raises:
        ConfigError: it is none of these.
    """
    if not isinstance(text, str):
        name, options = interface_block({"interface": text})
        return name or "", options
    shown = " ".join(text.split())
    name, _, tail = text.rpartition(":")
    if not name or "=" not in tail:
        return text, {}
    options = _read_value("{" + re.sub(r"\b(\w+)\s*=", r"\1: ", tail) + "}", shown)
    if not isinstance(options, dict) or "name" in options:
        raise ConfigError(f"`{shown}` must read `NAME:OPTION=VALUE,OPTION=VALUE`.")
    return name, _checked_options(options)


def set_interface(config: dict[str, Any], name: str, options: Mapping[str, Any] | None = None) -> None:
    """Let an interface that was asked for win over the config, in place.

    The config's options stay where they are for that interface, and ``options`` win over them.
    """
    configured, kept = interface_block(config)
    if configured != name:
        kept = {}
    if configured != name or options:
        config["interface"] = {"name": name, **kept, **(options or {})}


def check_blocks(config: Mapping[str, Any], *, strict: bool) -> RunnerConfig:
    """Check the top level and read the ``runner`` block.

    Args:
        config: the merged config.
        strict: a top-level key that nothing reads is an error. Not so for S3PRL's own tasks, which get every
            top-level key as a keyword.
    """
    for key in config:
        if strict and key not in BLOCKS:
            raise ConfigError(unknown_name("top-level config key", key, BLOCKS))
    for key in ("runner", "optimizer", "downstream_expert"):
        if key not in config:
            raise ConfigError(
                f"The config has no `{key}` block. `-c` replaces the task's own config: put that first, "
                "as in `-c configs/<task>.yaml YOUR.yaml`."
            )
    return read_block(RunnerConfig, config["runner"], "runner")
