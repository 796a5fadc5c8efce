"""Interfaces by name.

A name is one of three things: a name given to :func:`register_interface`; the name of an entry point in the
group ``s3prl_interfaces.interfaces`` of an installed distribution, whose value is ``package.module:Class``;
or such a ``package.module:Class`` itself.
"""

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from s3prl_interfaces.interfaces.base import Interface, check_int

ENTRY_POINT_GROUP = "s3prl_interfaces.interfaces"


@dataclass(frozen=True)
class InterfaceSpec:
    """What is known of an interface without building it."""

    name: str
    """The name by which it is built."""

    cls: type[Interface]
    """Its class, called as ``cls(num_layers, feature_dim, **options)``."""

    description: str = ""
    """One line for listings."""

    paper: str = ""
    """Where it was proposed."""

    min_layers: int = 1
    """The fewest layers that it can be built for with its default options."""

    fitted: bool = False
    """Whether ``partial_fit`` and ``finish_fit`` have to run before it can be used."""

    looks_across_time: bool = False
    """Whether a frame of the result depends on other frames, so that ``lengths`` matter."""


InterfaceClass = TypeVar("InterfaceClass", bound=type[Interface])

_SPECS: dict[str, InterfaceSpec] = {}


def register_interface(
    name: str,
    *,
    description: str = "",
    paper: str = "",
    min_layers: int = 1,
    fitted: bool = False,
    looks_across_time: bool = False,
) -> Callable[[InterfaceClass], InterfaceClass]:
    """Make an interface known by name; a decorator for its class.

    A class that is defined again (its module was reloaded, its notebook cell run again) replaces itself.

    Args:
        name: The name to build it by.
        description: One line for listings; by default the first line of the class's docstring.
        paper: Where it was proposed.
        min_layers: The fewest layers that it can be built for with its default options.
        fitted: Whether ``partial_fit`` and ``finish_fit`` have to run before it can be used.
        looks_across_time: Whether a frame of the result depends on other frames.

    Raises:
        ValueError: The name is no plain word or is taken by another class, or the class is no interface.
    """

    def register(cls: InterfaceClass) -> InterfaceClass:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"The name of an interface must be letters, digits and '_', but is {name!r}.")
        _check_class(name, cls)
        taken = _SPECS.get(name)
        if taken is not None and _home(taken.cls) != _home(cls):
            raise _duplicate(name, taken.cls, cls)
        _SPECS[name] = InterfaceSpec(
            name=name,
            cls=cls,
            description=description or _first_line(cls),
            paper=paper,
            min_layers=min_layers,
            fitted=fitted,
            looks_across_time=looks_across_time,
        )
        return cls

    return register


def list_interfaces() -> list[str]:
    """Return the names of all interfaces, those of installed plug-ins included, in sorted order."""
    return sorted({*_SPECS, *(point.name for point in _plugins())})


def get_spec(name: str) -> InterfaceSpec:
    """Return the record of one interface.

    Args:
        name: A registered name, the name of an installed plug-in, or ``package.module:Class``.

    Raises:
        ValueError: There is no such interface, more than one, or it is not a subclass of ``Interface``.
        ImportError: The module of an installed plug-in cannot be imported.
    """
    if not isinstance(name, str):
        raise ValueError(f"The name of an interface must be a string, but is {name!r}.")
    if ":" in name:
        return _spec_of(name, _import_class(name))
    found = _SPECS[name].cls if name in _SPECS else None
    for point in _plugins(name):
        cls = _load_plugin(point)
        if found is not None and found is not cls:
            raise _duplicate(name, found, cls)
        found = cls
    if found is None:
        raise ValueError(_unknown("interface", name, list_interfaces()))
    return _spec_of(name, found)


def interface_options(name: str) -> dict[str, Any]:
    """Return the options of an interface with their defaults (``inspect.Parameter.empty`` if it has none).

    Args:
        name: As for :func:`get_spec`.

    Raises:
        ValueError: As for :func:`get_spec`.
    """
    return {parameter.name: parameter.default for parameter in _named_options(get_spec(name).cls)}


def build_interface(name: str, *, num_layers: int, feature_dim: int, **options: Any) -> Interface:
    """Build an interface.

    Args:
        name: A registered name, the name of an installed plug-in, or ``package.module:Class``.
        num_layers: How many hidden states there will be, L.
        feature_dim: Channels of each, D.
        options: Its own options, see :func:`interface_options`.

    Returns:
        A module that maps L hidden states (B, T, D) to features (B, T, ``output_dim``).

    Raises:
        ValueError: The name or an option is unknown, or a value is impossible; the message says what is
            possible.
        ImportError: The module of an installed plug-in cannot be imported.
    """
    cls = get_spec(name).cls
    known = {parameter.name: parameter for parameter in _named_options(cls)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(cls).parameters.values())
    for option in options:
        if option not in known and not takes_any:
            shown = [str(p.replace(annotation=p.empty)) for p in known.values()]
            raise ValueError(_unknown(f"option of interface {name!r}:", option, known, shown))
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise ValueError(f"Interface {name!r} needs the option {missing[0]!r}.")
    # Checked here as well, so that a plug-in's constructor need not.
    sizes = check_int("num_layers", num_layers), check_int("feature_dim", feature_dim)
    return cls(*sizes, **options)


def _named_options(cls: type[Interface]) -> Iterator[inspect.Parameter]:
    for parameter in inspect.signature(cls).parameters.values():
        by_name = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if by_name and parameter.name not in ("num_layers", "feature_dim"):
            yield parameter


def _plugins(name: str | None = None) -> list[EntryPoint]:
    # Read anew each time: it takes milliseconds, and what is installed may change in a notebook.
    points = entry_points(group=ENTRY_POINT_GROUP)
    return [point for point in points if name is None or point.name == name]


def _load_plugin(point: EntryPoint) -> type[Interface]:
    owner = point.dist.name if point.dist is not None else "an unknown distribution"
    try:
        cls = point.load()
    except (ImportError, AttributeError) as error:
        raise ImportError(
            f"Interface {point.name!r} ({point.value}, installed by {owner}) cannot be imported: {error}"
        ) from error
    _check_class(point.name, cls)
    return cls


def _import_class(name: str) -> type[Interface]:
    module_name, _, class_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, TypeError, ValueError) as error:  # the last two: an empty or a relative name
        raise ValueError(f"Interface {name!r}: module {module_name!r} cannot be imported: {error}") from error
    cls = getattr(module, class_name, None)
    if cls is None:
        classes = [key for key, value in vars(module).items() if _is_interface(value)]
        raise ValueError(_unknown(f"class in {module_name!r}:", class_name, classes))
    _check_class(name, cls)
    return cls


def _spec_of(name: str, cls: type[Interface]) -> InterfaceSpec:
    """Return what the class said of itself when it was registered, or else what can be said of any class."""
    specs = [spec for spec in _SPECS.values() if spec.cls is cls]
    specs.sort(key=lambda spec: spec.name != name)
    return specs[0] if specs else InterfaceSpec(name, cls, _first_line(cls))


def _is_interface(cls: object) -> bool:
    return isinstance(cls, type) and issubclass(cls, Interface)


def _check_class(name: str, cls: object) -> None:
    if not _is_interface(cls):
        raise ValueError(f"Interface {name!r} must be a subclass of {_home(Interface)}, but is {cls!r}.")


def _home(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _first_line(cls: type) -> str:
    return (cls.__doc__ or "").strip().partition("\n")[0]


def _duplicate(name: str, first: type, second: type) -> ValueError:
    return ValueError(f"Two interfaces have the name {name!r}: {_home(first)} and {_home(second)}.")


def _unknown(kind: str, name: str, known: Iterable[str], shown: Iterable[str] | None = None) -> str:
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Possible: {', '.join(shown or known) or 'none'}."
