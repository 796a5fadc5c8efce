"""What a run scored on each utterance or trial of a split, and its score under any weights of the utterances."""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counted:
    """A score that is a ratio of two sums over utterances.

    An accuracy has numerator 1 where the utterance is right and denominator 1; an error rate the edits and the tokens
    of the reference; a mean over utterances the utterance's value and 1.
    """

    names: tuple[str, ...]
    """Of the utterances, each once."""
    numerators: Floats
    """(utterances,) in the unit of the metric: 100 times the edits where the metric is in percent."""
    denominators: Floats
    """(utterances,)"""
    classes: NDArray[np.int64] | None = None
    """(utterances,) numbers of the true classes: the score is the mean of the ratios of the classes. None: one class.
    """

    @property
    def utterances(self) -> tuple[str, ...]:
        """What a bootstrap draws, in the order of the weights of :meth:`weighted`."""
        return self.names

    @property
    def value(self) -> float:
        """The score."""
        return float(self.weighted(np.ones((1, len(self.names))))[0])

    def in_order(self) -> "Counted":
        """The same, sorted by name."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        return Counted(
            tuple(self.names[index] for index in order),
            self.numerators[order],
            self.denominators[order],
            None if self.classes is None else self.classes[order],
        )

    def weighted(self, weights: Floats) -> Floats:
        """The scores where each utterance counts as often as its weight says.

        Args:
            weights: (resamples, utterances).

        Returns:
            (resamples,), NaN where nothing is left to divide by. Classes of no utterance do not count.
        """
        with np.errstate(invalid="ignore"):
            if self.classes is None:
                return (weights @ self.numerators) / (weights @ self.denominators)
            order = np.argsort(self.classes, kind="stable")
            starts = np.flatnonzero(np.diff(self.classes[order], prepend=-1))
            sums = [
                np.add.reduceat(weights[:, order] * counts[order], starts, axis=1)
                for counts in (self.numerators, self.denominators)
            ]
            return np.nanmean(sums[0] / sums[1], axis=1)


@dataclass(frozen=True, eq=False)
class Trials:
    """Trials of a verification system, whose score is the equal error rate (EER)."""

    names: tuple[tuple[str, str], ...]
    """The two utterances of each trial."""
    scores: Floats
    """(trials,) the higher, the likelier it is one speaker."""
    labels: NDArray[np.bool_]
    """(trials,) whether it is."""

    @cached_property
    def utterances(self) -> tuple[str, ...]:
        """What a bootstrap draws, in the order of the weights of :meth:`weighted`."""
        return tuple(sorted({name for pair in self.names for name in pair}))

    @property
    def value(self) -> float:
        """The EER, a fraction."""
        return float(self.weighted(np.ones((1, len(self.utterances))))[0])

    def in_order(self) -> "Trials":
        """The same, sorted by names."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        return Trials(tuple(self.names[index] for index in order), self.scores[order], self.labels[order])

    def weighted(self, weights: Floats) -> Floats:
        """The EERs where each utterance counts as often as its weight says, a trial as the product of its two.

        The rates of false accepts and of misses are straight lines between thresholds, as S3PRL has it
        (``s3prl/downstream/sv_voxceleb1/utils.py``), and trials of the same score are accepted together.

        Args:
            weights: (resamples, utterances) whole numbers.

        Returns:
            (resamples,), NaN where no trial of one of the two kinds is left.
        """
        first, second, kinds, ends = self._by_score
        rates = []
        for of_utterances in weights.astype(np.int64):  # one by one: they stay in the processor's cache
            counts = np.cumsum(of_utterances[first] * of_utterances[second] * kinds)[ends]
            rates.append(_equal_error_rate(counts))
        return np.array(rates)

    @cached_property
    def _by_score(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Places of the first and the second utterance and kind of each trial, best first; last trial of each score."""
        place = {name: index for index, name in enumerate(self.utterances)}
        pairs = np.array([[place[first], place[second]] for first, second in self.names], dtype=np.int64).reshape(-1, 2)
        order = np.argsort(-self.scores, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(self.scores[order]) != 0, True))
        return pairs[order, 0], pairs[order, 1], np.where(self.labels[order], _TARGET, 1), ends


Scores = Counted | Trials

_TARGET = 1 << 32
"""What a target adds to a count, and a non-target adds 1: one sum counts both, exactly."""


def _equal_error_rate(counts: NDArray[np.int64]) -> float:
    """The EER of accepted trials.

    Args:
        counts: (thresholds,) how many targets and non-targets are accepted, from the highest threshold to the lowest.
    """
    targets, others = divmod(int(counts[-1]), _TARGET)
    if not targets or not others:
        return float("nan")

    def rates(threshold: int) -> tuple[float, float]:
        """False accepts, and by how much there are more misses: from 1 down to -1."""
        hits, alarms = divmod(int(counts[threshold]), _TARGET) if threshold >= 0 else (0, 0)
        return alarms / others, (targets * others - hits * others - alarms * targets) / (targets * others)

    after = bisect_left(range(len(counts)), True, key=lambda threshold: rates(threshold)[1] <= 0)
    (low, above), (high, below) = rates(after - 1), rates(after)
    return low + (high - low) * above / (above - below)
