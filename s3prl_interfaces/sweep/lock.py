"""Two sweeps in one folder would train the same cells into the same files: the second one is refused."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3prl_interfaces.errors import DataError, UserError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; the lock goes with the process, however that ends.

    Raises:
        UserError: another process holds it.
        DataError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".sweep.lock").open("w")
    except OSError as error:
        raise DataError(f"Folder {folder} cannot be made or written to: {error}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"Another sweep is at work in {folder}: wait for it, or stop it.") from error
        yield
