"""Corpora on disk: written whole or not at all, and never over somebody else's files."""

import csv
import hashlib
import json
import tempfile
import wave
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from s3prl_interfaces.errors import DataError
from s3prl_interfaces.mini_superb.acoustics import SAMPLE_RATE

MARKER = "mini_superb.json"
"""File in a finished corpus that says how it was made."""


def build(target: Path, parameters: dict[str, Any], write: Callable[[Path], None]) -> None:
    """Build the corpus ``target`` in a hidden directory beside it and move it into place when it is finished.

    Args:
        target: Directory of the corpus. If it is finished with the same parameters, nothing is done.
        parameters: What the corpus depends on, for its marker; plain JSON values.
        write: Writes the corpus into the directory it is given.

    Raises:
        DataError: If ``target`` holds something else, or cannot be written.
    """
    try:
        if is_finished(target, parameters):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            unfinished = Path(folder) / target.name
            unfinished.mkdir()
            write(unfinished)
            marker = {**parameters, "sha256": digest(unfinished)}
            (unfinished / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
            if is_finished(target, parameters):  # another process was faster
                return
            if target.exists():
                target.rmdir()  # empty, as is_finished() saw; Windows cannot rename onto it
            unfinished.rename(target)
    except OSError as error:
        raise DataError(f"Cannot write {target}: {error}") from error


def is_finished(target: Path, parameters: dict[str, Any]) -> bool:
    """Tell whether ``target`` was made with these parameters.

    Raises:
        DataError: If ``target`` is neither that nor empty nor absent.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    try:
        found = json.loads((target / MARKER).read_text(encoding="utf-8"))
        made_with = {key: found[key] for key in parameters}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{target} exists and was not made by mini-superb; choose another directory. Nothing was changed."
        ) from error
    if made_with != parameters:
        raise DataError(
            f"{target} was made with {made_with}, not with {parameters}; remove it or choose another "
            "directory. Nothing was changed."
        )
    return True


def digest(directory: Path) -> str:
    """SHA-256 over the names and contents of all files below ``directory`` except its marker.

    A FLAC file counts by its samples: the bytes that hold them depend on the version of libsndfile.
    """
    total = hashlib.sha256()
    names = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    for name in sorted(names.keys() - {MARKER}):
        total.update(f"{name} {hashlib.sha256(_contents(names[name])).hexdigest()}\n".encode())
    return total.hexdigest()


def _contents(path: Path) -> bytes:
    if path.suffix != ".flac":
        return path.read_bytes()
    samples, _ = soundfile.read(path, dtype="int16")
    return samples.astype("<i2").tobytes()


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write ``samples`` ``(time,)`` as 16 kHz mono 16-bit PCM; missing directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a comma-separated table; missing directories are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
