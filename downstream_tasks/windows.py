"""How PR and SF cut sorted utterances into training batches (S3PRL: ``downstream/ctc/data.py``, ``ctc/corpus``).

Utterances are sorted by the length of their target, so that those of a batch, a window of neighbours, are alike.
"""

from collections.abc import Sequence

LONG = 300_000
"""Samples (18.75 s at 16 kHz) above which a window's first utterance halves it."""


def make_windows(items: Sequence[int], size: int, *, overlapping: bool) -> list[list[int]]:
    """Cut sorted items into windows of neighbours.

    Args:
        items: in their order.
        size: items of a window.
        overlapping: as S3PRL, one window for each item: the one that begins there, or the last whole one. Where there
            are fewer items than ``size``, S3PRL's windows begin at a negative index and leave items out; here each
            has all of them. False: one window after the other, each item once; the last window may be smaller.

    Returns:
        The windows, in the order of ``items``.
    """
    if overlapping:
        last = max(0, len(items) - size)
        starts = [min(start, last) for start in range(len(items))]
    else:
        starts = list(range(0, len(items), size))
    return [list(items[start : start + size]) for start in starts]


def halve_long(windows: Sequence[list[int]], lengths: Sequence[int], *, drop: bool) -> list[list[int]]:
    """Halve each window whose first item is long, so that it fits into memory.

    Args:
        windows: to look at; one of a single item stays.
        lengths: samples of each item.
        drop: leave out the second half, as S3PRL. False: it becomes a window of its own.

    Returns:
        The windows, each in place of the one that it was cut from.
    """
    cut = []
    for window in windows:
        if len(window) < 2 or lengths[window[0]] <= LONG:
            cut.append(window)
            continue
        middle = len(window) // 2
        cut.append(window[:middle])
        if not drop:
            cut.append(window[middle:])
    return cut
