"""Progress bars: one process shows them, however many work."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from s3prl_interfaces.runner import distributed


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A bar as wide as the terminal; ``options`` are tqdm's."""
    return tqdm(iterable, dynamic_ncols=True, disable=not distributed.is_first(), **options)
