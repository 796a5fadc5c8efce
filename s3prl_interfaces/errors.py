"""Failures that a user can cause and mend.

The command line prints the message of a :class:`UserError` on one line and exits with code 2; a traceback is
shown only with ``--verbose``. A message names the file, key or option and the remedy.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of every failure that a user can cause and mend."""


class ConfigError(UserError, ValueError):
    """A config key, a command-line option or a value that cannot be used."""


class DataError(UserError):
    """A corpus, a metadata file or an audio file that is missing or cannot be read."""


class UpstreamError(UserError):
    """An upstream that is unknown or cannot be loaded."""


class CheckpointError(UserError):
    """A checkpoint that is missing, unreadable or of another shape."""


class ResultError(UserError):
    """A ``results.json`` that is missing, unreadable or of an unknown schema."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> str:
    """Say that ``name`` is unknown, which known name is nearest, and what is possible."""
    options = sorted(known)
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Possible: {', '.join(options)}."
