"""How long each file of a corpus is: read once, then kept beside the corpus or in the user's cache."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import soundfile
from tqdm import tqdm

from downstream_tasks.audio import MIN_SAMPLES, NO_LENGTH, SAMPLE_RATE, check_rate, unreadable
from s3prl_interfaces.errors import DataError
from s3prl_interfaces.files import write_whole

log = logging.getLogger(__name__)

FOLDER = ".s3prl_interfaces"
"""Where the lengths are kept in a corpus."""
VERSION = 1
_UNKNOWN = 2**63 - 1  # what libsndfile says of FLAC that was written to a pipe
_THREADS = 8  # waits for the disk, not for the processor


def samples_of(path: Path) -> int:
    """Length of an audio file in samples at 16 kHz, from its header.

    Raises:
        DataError: the file is missing, is no audio, has a rate that cannot be resampled, or is shorter than one frame.
    """
    try:
        info = soundfile.info(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise unreadable(path, error) from error
    if info.frames == _UNKNOWN:
        raise DataError(f"Audio file {path} cannot be read: {NO_LENGTH}.")
    check_rate(path, info.samplerate)
    samples = -(-info.frames * SAMPLE_RATE // info.samplerate)  # as torchaudio's resampling: rounded up
    if samples < MIN_SAMPLES:
        raise DataError(f"Audio file {path} has {samples} samples, less than one frame of 25 ms ({MIN_SAMPLES}).")
    return samples


def audio_lengths(
    root: Path,
    files: Sequence[str],
    *,
    measure: Callable[[Path], int] = samples_of,
    kind: str = "samples",
    skip_bad_audio: bool = False,
) -> list[int]:
    """Lengths of a corpus's files.

    They are kept in ``root/.s3prl_interfaces/``, or, where that cannot be written, in
    ``$XDG_CACHE_HOME/s3prl_interfaces`` (``~/.cache`` by default), under a key of ``kind``, ``root`` and the list of
    files: another list is measured anew, a file that was replaced by another of the same name is not. Delete the
    folder to measure again.

    Args:
        root: the corpus.
        files: relative to ``root``.
        measure: length of one file; called by several threads.
        kind: what ``measure`` measures; another measure needs another name.
        skip_bad_audio: an unreadable file has length 0 and is told of, instead of ending it all.

    Returns:
        One length for each file, 0 for those that were skipped.

    Raises:
        DataError: a file cannot be read.
    """
    if not files:
        return []
    key = hashlib.sha256("\n".join([kind, str(root.resolve()), *files]).encode(errors="surrogateescape")).hexdigest()
    places = [root / FOLDER, _user_cache()]
    name = f"{kind}-{key[:16]}.json"
    for place in places:
        if (kept := _read(place / name, key, len(files))) is not None:
            return kept

    def measured(file: str) -> int:
        try:
            return measure(root / file)
        except DataError as error:
            if not skip_bad_audio:
                raise
            log.warning("Skipped, as `skip_bad_audio` says: %s", error)
            return 0

    with ThreadPoolExecutor(_THREADS) as pool:
        try:
            found = list(
                tqdm(pool.map(measured, files), total=len(files), desc=f"lengths of {root.name}", disable=None)
            )
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
    if all(found):  # what was skipped may be mended
        _keep(places, name, {"version": VERSION, "key": key, "root": str(root.resolve()), "lengths": found})
    return found


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3prl_interfaces"


def _read(path: Path, key: str, count: int) -> list[int] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lengths = content["lengths"]
        fits = content["version"] == VERSION and content["key"] == key and len(lengths) == count
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return lengths if fits and all(type(length) is int and length > 0 for length in lengths) else None


def _keep(places: Sequence[Path], name: str, content: dict[str, object]) -> None:
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / name, json.dumps(content))
            return
        except OSError:
            continue
    log.warning("The lengths can be kept neither in %s nor in %s: they are measured again next time.", *places)
