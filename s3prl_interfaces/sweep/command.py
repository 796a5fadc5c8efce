"""The command line of a run, from its arguments."""

from __future__ import annotations

import dataclasses
import shlex
import sys

from s3prl_interfaces.runner.arguments import RunArguments

_SHORT = {
    "mode": "-m",
    "downstream": "-d",
    "upstream": "-u",
    "config": "-c",
    "override": "-o",
    "expname": "-n",
    "expdir": "-p",
    "auto_resume": "-a",
}


def flags_of(args: RunArguments) -> list[str]:
    """The flags that ``s3prl-interfaces run`` reads as ``args``; what has its default is left out."""
    given = []
    for entry in dataclasses.fields(args):
        value = getattr(args, entry.name)
        default = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        if value == default:
            continue
        given.append(_SHORT.get(entry.name, f"--{entry.name}"))
        if isinstance(value, list):
            given += map(str, value)
        elif value is not True:
            given.append(str(value))
    return given


def process_of(args: RunArguments) -> list[str]:
    """The command that starts the run as a process, in the same environment as this one."""
    return [sys.executable, "-m", "s3prl_interfaces.cli", "run", *flags_of(args)]


def shell_line(args: RunArguments) -> str:
    """The command as one types it."""
    return shlex.join(["s3prl-interfaces", "run", *flags_of(args)])
