"""Files that are written whole or not at all."""

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a text file in UTF-8. Whatever goes wrong, a file that was there before is left as it was.

    Raises:
        OSError: It cannot be written.
    """
    # The process id keeps two processes apart; a name of our own, unlike `tempfile`'s, honours the umask.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Only a rename within one folder is atomic.
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
