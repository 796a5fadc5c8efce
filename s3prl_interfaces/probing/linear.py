"""The probe: multinomial logistic regression on one layer, its L2 penalty chosen on a part of the training data."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from s3prl_interfaces.probing.features import Examples

PENALTIES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Weights of half the squared norm of the classifier's weights, beside the mean cross-entropy."""
HELD_OUT = 5
"""One group in so many is held out of the training data to choose the penalty."""
CHOOSING_EXAMPLES = 5000
"""How many of the examples that are left, at most, are fitted on to choose the penalty."""
ITERATIONS = 100
"""Of L-BFGS, at most, for each penalty."""


@dataclass(frozen=True)
class Score:
    """How well one layer does.

    Attributes:
        held_out: Accuracy on the held-out part of the training data, with the penalty chosen there.
        penalty: That penalty.
        correct: Right answers in each test utterance, (utterances,).
        counts: Test examples in each, (utterances,): frames, or 1.
    """

    held_out: float
    penalty: float
    correct: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def accuracy(self) -> float:
        """Share of the test examples that are classified right."""
        return float(self.correct.sum() / self.counts.sum())


@dataclass(frozen=True)
class Probe:
    """A fitted probe: ``(x - mean) / scale @ weights + bias``; weights (width, classes)."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: Tensor

    def predict(self, features: Tensor) -> Tensor:
        """Classes (N,) of features (N, width)."""
        return ((features - self.mean) / self.scale @ self.weights + self.bias).argmax(dim=1)

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of (N,) labels that are predicted."""
        return float((self.predict(features) == labels).double().mean())


def fit(features: Tensor, labels: Tensor, classes: int, penalties: Sequence[float] = PENALTIES) -> list[Probe]:
    """Fit one probe for each penalty, by L-BFGS in the order given, each starting from the one before.

    Args:
        features: (N, width); each dimension is standardised by its mean and deviation over the N.
        labels: (N,) int64, below ``classes``.
        classes: How many there are.
        penalties: Strong ones first: they are quick to fit and good to start from.
    """
    mean, deviation = features.mean(dim=0), features.std(dim=0, correction=0)
    scale = torch.where(deviation > 1e-6, deviation, 1.0)  # a constant dimension tells nothing
    inputs = (features - mean) / scale
    weights = torch.zeros(features.size(1), classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    probes = []
    for penalty in penalties:
        optimizer = torch.optim.LBFGS(
            [weights, bias], max_iter=ITERATIONS, tolerance_change=1e-7, line_search_fn="strong_wolfe"
        )

        def loss(penalty: float = penalty, optimizer: torch.optim.LBFGS = optimizer) -> Tensor:
            optimizer.zero_grad()
            value = torch.nn.functional.cross_entropy(inputs @ weights + bias, labels)
            value = value + penalty / 2 * weights.square().sum()
            value.backward()
            return value

        optimizer.step(loss)
        probes.append(Probe(mean, scale, weights.detach().clone(), bias.detach().clone()))
    return probes


def held_out(groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the examples of every fifth group, drawn at random but always the same.

    Raises:
        ValueError: If there is only one group.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError("A probe needs two groups or more, to fit on one and to choose its penalty on the other.")
    drawn = np.random.RandomState(0).permutation(names)[: max(1, len(names) // HELD_OUT)]
    return np.isin(groups, drawn)


def probe(train: Examples, test: Examples, layer: int, classes: int) -> Score:
    """Choose the penalty on a part of ``train``, fit on all of it, and score on ``test``."""
    penalty, accuracy = choose(train, layer, classes)
    (fitted,) = fit(train.layers[layer], train.labels, classes, [penalty])
    right = (fitted.predict(test.layers[layer]) == test.labels).double().numpy()
    correct = np.bincount(test.utterances, weights=right).astype(np.float64)
    return Score(accuracy, penalty, correct, np.bincount(test.utterances))


def choose(train: Examples, layer: int, classes: int) -> tuple[float, float]:
    """Give the penalty that does best on the held-out part of ``train``, of equals the strongest, and its accuracy."""
    features, labels = train.layers[layer], train.labels
    out = held_out(train.groups)
    rest = np.random.RandomState(0).permutation(np.flatnonzero(~out))[:CHOOSING_EXAMPLES]
    candidates = fit(features[rest], labels[rest], classes)
    accuracies = [candidate.accuracy(features[out], labels[out]) for candidate in candidates]
    best = int(np.argmax(accuracies))
    return PENALTIES[best], accuracies[best]
