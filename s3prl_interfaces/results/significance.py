"""Is a difference between two interfaces real? A paired bootstrap over the utterances of the test set.

Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004, for error
rates; Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13, for the percentile interval; Owen,
"The pigeonhole bootstrap", 2007, for trials, which share utterances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.scores import Counted, Floats, Scores

_AT_ONCE = 1 << 22
"""Weights that are held at once: 32 MiB."""

_DIGITS = 12
"""Differences are rounded to this: the order in which equal seeds are averaged must not decide which is better."""


@dataclass(frozen=True)
class Comparison:
    """The difference of two mean scores, in the unit of the metric, and how sure it is."""

    difference: float
    """Ours minus the baseline's."""
    low: float
    """Lower end of the percentile interval of the difference."""
    high: float
    """Its upper end."""
    p_value: float
    """Two-sided: how likely so large a difference is if there is none."""
    level: float
    """Of the interval, such as 0.95."""
    units: int
    """Utterances that were drawn from, of all folds. Of trials these are the utterances that they are made of."""
    resamples: int
    """Draws in which both sides have a score."""


def compare(
    ours: Sequence[Sequence[Scores]],
    baseline: Sequence[Sequence[Scores]],
    *,
    resamples: int = 5000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare the mean scores of two interfaces over their seeds by a paired bootstrap.

    Each resample draws as many utterances as there are, with replacement, the same ones for both sides and all seeds,
    and takes the difference of the scores anew. With ``n`` resamples, ``p = min(1, 2 * (1 + m) / (n + 1))``, where
    ``m`` is how many differences are 0 or less, or 0 or more if those are fewer (the 1 is the test set itself).

    The trained weights are taken as they are. What is answered is whether the difference would be there on other
    utterances of this kind, not whether it would be there with other seeds: see the spread over seeds for that.
    For EER utterances are drawn, not trials, and a trial counts as often as the product of its two: trials that share
    an utterance are alike, and drawing trials would find differences where there are none. The interval is rather too
    wide than too narrow, up to sqrt(3) times where trials that share an utterance are not alike (Owen). Speakers are
    not drawn.

    Args:
        ours: Of each seed, of each of its folds, the scores; tasks that are not cross-validated have one fold. A seed's
            score is the mean over its folds. Every seed must have the same folds in the same order; the two sides may
            have different numbers of seeds.
        baseline: As ``ours``.
        resamples: How many.
        seed: Of the draws. The result does not depend on the order of the utterances.
        level: Of the interval.

    Raises:
        ResultError: The scores are not of the same folds, utterances and truth, or no resample has a score.
        ValueError: There is no seed on one side, or ``resamples`` or ``level`` makes no sense.
    """
    if not ours or not baseline or resamples < 1 or not 0 < level < 1:
        raise ValueError("`compare` needs a seed on each side, 1 or more `resamples` and a `level` between 0 and 1.")
    sides = [[[scores.in_order() for scores in folds] for folds in side] for side in (ours, baseline)]
    _check_same(sides)
    generator = np.random.default_rng(seed)
    means = [np.mean([[scores.value for scores in folds] for folds in side]) for side in sides]
    by_fold = [
        _resample([[folds[index] for folds in side] for side in sides], resamples, generator)
        for index in range(len(sides[0][0]))
    ]
    drawn: Floats = np.round(np.stack(by_fold).mean(axis=0), _DIGITS)
    differences = drawn[np.isfinite(drawn)]
    if not len(differences):
        raise ResultError("There are too few utterances to compare: no draw of them has a score.")
    tail = (1 - level) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    crossing = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    return Comparison(
        difference=float(np.round(means[0] - means[1], _DIGITS)),
        low=float(low),
        high=float(high),
        p_value=min(1.0, 2 * (1 + crossing) / (len(differences) + 1)),
        level=level,
        units=sum(len(scores.utterances) for scores in sides[0][0]),
        resamples=len(differences),
    )


def _resample(sides: Sequence[Sequence[Scores]], resamples: int, generator: np.random.Generator) -> Floats:
    """(resamples,) differences in one fold of the two sides' means over seeds."""
    size = len(sides[0][0].utterances)
    step = max(1, _AT_ONCE // size)
    parts = []
    for start in range(0, resamples, step):
        weights = _draw(min(step, resamples - start), size, generator)
        ours, baseline = (np.mean([scores.weighted(weights) for scores in side], axis=0) for side in sides)
        parts.append(ours - baseline)
    return np.concatenate(parts)


def _draw(resamples: int, size: int, generator: np.random.Generator) -> Floats:
    """(resamples, size) how often each of ``size`` is drawn when ``size`` are drawn with replacement."""
    drawn = generator.integers(size, size=(resamples, size))
    drawn += size * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * size).reshape(resamples, size).astype(np.float64)


def _check_same(sides: Sequence[Sequence[Sequence[Scores]]]) -> None:
    """Every seed must have the first one's folds, utterances and truth."""
    first = sides[0][0]
    for folds in (folds for side in sides for folds in side):
        if not folds or len(folds) != len(first):
            raise ResultError(f"Runs with {len(folds)} and {len(first)} folds cannot be compared: finish all folds.")
        for scores, reference in zip(folds, first, strict=True):
            if type(scores) is not type(reference):
                raise ResultError("Runs that were scored by different metrics cannot be compared.")
            if scores.names != reference.names:
                differing = len(set(scores.names) ^ set(reference.names))
                raise ResultError(
                    f"The runs were not scored on the same utterances: {differing} are in one of them only, of "
                    f"{len(scores.names)} and {len(reference.names)}. Evaluate both on the same data "
                    "(`skip_bad_audio` leaves files out)."
                )
            pairs = zip(_truth(scores), _truth(reference), strict=True)
            if not all(np.array_equal(mine, other) for mine, other in pairs):
                raise ResultError(
                    "The runs were not scored against the same truth: utterances of the same name have other labels or "
                    "transcripts. Evaluate both on the same data."
                )


def _truth(scores: Scores) -> tuple[Any, ...]:
    """What must be equal for two systems to be comparable."""
    return (scores.denominators, scores.classes) if isinstance(scores, Counted) else (scores.labels,)
