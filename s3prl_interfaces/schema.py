"""Read a block of YAML into a dataclass: unknown keys, missing keys and wrong types are errors that say what to do."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from s3prl_interfaces.errors import ConfigError, unknown_name

T = TypeVar("T")


def read_block(cls: type[T], block: object, where: str) -> T:
    """Build the dataclass ``cls`` from the mapping ``block``.

    Args:
        cls: a dataclass whose fields are the keys that are read; one with ``metadata={"key": ...}`` is read from
            that key instead of its own name.
        block: what YAML gave at ``where``; ``None`` (an empty block) is an empty mapping.
        where: the key's place in the config, for messages (``downstream_expert.datarc``).

    Raises:
        ConfigError: a key that nothing reads (with the nearest known one), a key that is missing, or a value of
            another type.
    """
    block = {} if block is None else block
    if not isinstance(block, Mapping):
        raise ConfigError(f"`{where}` must be a mapping, but is {block!r}.")
    # A key that is no Python name (`dev-clean`) stands in its field's metadata.
    fields = {field.metadata.get("key", field.name): field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in block:
        if key not in fields:
            raise ConfigError(unknown_name(f"key in `{where}`:", key, fields))
    hints = typing.get_type_hints(cls)
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in block:
            raise ConfigError(f"`{where}.{key}` is missing: add it to the config.")
    values = {
        fields[key].name: _convert(value, hints[fields[key].name], f"{where}.{key}") for key, value in block.items()
    }
    return cls(**values)


def _convert(value: Any, hint: Any, where: str) -> Any:
    """Check ``value`` against a type hint; an int is accepted where a float is wanted."""
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(value, next(option for option in options if option is not type(None)), where)
    if origin is typing.Literal:
        options = typing.get_args(hint)
        if value not in options:
            raise ConfigError(f"`{where}` must be one of {', '.join(map(str, options))}, but is {value!r}.")
        return value
    if origin in (list, tuple):
        item = (typing.get_args(hint) or (Any,))[0]
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"`{where}` must be a list, but is {value!r}.")
        return origin(_convert(entry, item, f"{where}[{index}]") for index, entry in enumerate(value))
    if origin is dict or hint is dict:
        if value is not None and not isinstance(value, Mapping):
            raise ConfigError(f"`{where}` must be a mapping, but is {value!r}.")
        return dict(value or {})
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_block(hint, value, where)
    # bool is an int in Python, but `total_steps: true` is a slip.
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"`{where}` must be of type {hint.__name__}, but is {value!r}.")
    return value
