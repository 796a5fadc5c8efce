"""Tensors by key in a folder of shards (safetensors), which many processes may read and write at once.

A shard is written under another name and then renamed, and never changed afterwards: whoever is killed while writing
leaves a file that nobody reads. Two processes may store the same key; both shards are right. Shards are memory-mapped.
"""

import contextlib
import logging
import os
import uuid
from collections import OrderedDict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

log = logging.getLogger(__name__)

SHARD_BYTES = 64 << 20
"""What is gathered in memory before it is written."""
_OPEN = 128  # shards that stay open
_SUFFIX = ".safetensors"


class Store:
    """Tensors by key.

    Args:
        folder: of the shards; made with the first of them.
        root: the folder whose files ``max_bytes`` is about; ``folder``, or one above it.
        max_bytes: when the files under ``root`` would be larger than this together, nothing is stored any more; None:
            no limit but the disk's.

    Attributes:
        full: whether nothing is stored any more.
    """

    def __init__(self, folder: Path, root: Path, max_bytes: int | None = None) -> None:
        self.folder = folder
        self.root = root
        self.max_bytes = max_bytes
        self.full = False
        self._shards: dict[str, Path] = {}
        self._seen: set[str] = set()
        self._open: OrderedDict[Path, Any] = OrderedDict()
        self._pending: dict[str, Tensor] = {}
        self._pending_bytes = 0
        self._changed: int | None = None
        self._look_around()

    def get(self, key: str) -> Tensor | None:
        """What is stored under ``key``, if anything; not to be changed."""
        if key in self._pending:
            return self._pending[key]
        if key not in self._shards:
            self._look_around()
        path = self._shards.get(key)
        if path is None:
            return None
        try:
            return self._opened(path).get_tensor(key)
        except (OSError, SafetensorError) as error:
            self._forget(path, error)
            return None

    def put(self, key: str, tensor: Tensor) -> None:
        """Store a tensor on the CPU, unless the store is full; it is on disk after :meth:`flush`, or before."""
        if self.full:
            return
        self._pending[key] = tensor
        self._pending_bytes += tensor.nbytes
        if self._pending_bytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is not on disk yet."""
        if not self._pending:
            return
        if self.max_bytes is not None and self._used() + self._pending_bytes > self.max_bytes:
            self._stop(f"the files in {self.root} would be larger than max_bytes, {self.max_bytes}, together")
            return
        name = f"{uuid.uuid4().hex}{_SUFFIX}"
        path, unfinished = self.folder / name, self.folder / f"{name}.unfinished"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_file(self._pending, unfinished)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.rename(path)
        except (OSError, SafetensorError) as error:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            self._stop(str(error))
            return
        self._seen.add(name)
        self._shards |= dict.fromkeys(self._pending, path)
        self._clear()

    def _stop(self, reason: str) -> None:
        self.full = True
        log.warning("No more hidden states are stored, what is not there is computed: %s.", reason)
        self._clear()

    def _clear(self) -> None:
        self._pending = {}
        self._pending_bytes = 0

    def _used(self) -> int:
        return sum(file.stat().st_size for file in self.root.rglob("*") if file.is_file())

    def _look_around(self) -> None:
        """Learn what is in shards that were not there before."""
        try:
            changed = self.folder.stat().st_mtime_ns
        except OSError:  # there is nothing yet
            return
        if changed == self._changed:
            return
        self._changed = changed
        for path in self.folder.glob(f"*{_SUFFIX}"):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            try:
                self._shards |= dict.fromkeys(self._opened(path).keys(), path)
            except (OSError, SafetensorError) as error:
                self._forget(path, error)

    def _opened(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = safe_open(path, framework="pt")
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def _forget(self, path: Path, error: Exception) -> None:
        log.warning("%s cannot be read and is left out (%s): delete it.", path, error)
        self._open.pop(path, None)
        self._shards = {key: shard for key, shard in self._shards.items() if shard != path}
