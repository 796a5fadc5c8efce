"""Errors of a verification system: EER and minDCF of trials with a score each."""

import numpy as np
from numpy.typing import NDArray


def equal_error_rate(targets: NDArray[np.bool_], scores: NDArray[np.floating]) -> float:
    """Error rate at the threshold where as large a share of non-targets is accepted as of targets rejected.

    Between thresholds the curve of the two shares is a straight line, as in S3PRL
    (``s3prl/downstream/sv_voxceleb1/utils.py``). Trials of the same score are accepted together.

    Args:
        targets: (trials,) whether both utterances are of one speaker; must have both kinds.
        scores: (trials,) the higher, the likelier a target.

    Returns:
        A fraction.
    """
    false_accepts, misses = _error_rates(targets, scores)
    above = misses - false_accepts  # falls from 1 to -1
    after = int(np.argmax(above <= 0))
    share = above[after - 1] / (above[after - 1] - above[after])
    return float(false_accepts[after - 1] + share * (false_accepts[after] - false_accepts[after - 1]))


def min_dcf(targets: NDArray[np.bool_], scores: NDArray[np.floating], p_target: float = 0.01) -> float:
    """Least detection cost of all thresholds (NIST's speaker recognition evaluations), both errors costing 1.

    ``min(p_target * misses + (1 - p_target) * false_accepts) / min(p_target, 1 - p_target)``; a system that always
    gives the better of the two constant answers has 1.

    Args:
        targets: (trials,) whether both utterances are of one speaker; must have both kinds.
        scores: (trials,) the higher, the likelier a target.
        p_target: how likely a target is in the application.
    """
    false_accepts, misses = _error_rates(targets, scores)
    costs = p_target * misses + (1 - p_target) * false_accepts
    return float(costs.min() / min(p_target, 1 - p_target))


def _error_rates(
    targets: NDArray[np.bool_], scores: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Shares of accepted non-targets and of rejected targets: none accepted at first, then down to each score."""
    order = np.argsort(-scores, kind="stable")
    targets, scores = targets[order], scores[order]
    last = np.append(np.diff(scores) != 0, True)  # of those of the same score
    hits = np.cumsum(targets)[last]
    false_alarms = np.cumsum(~targets)[last]
    return np.append(0, false_alarms / false_alarms[-1]), np.append(1, 1 - hits / hits[-1])
