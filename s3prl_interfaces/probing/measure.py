"""Probing an upstream for a task beside its baselines, and how sure the differences are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from s3prl_interfaces.probing.data import ProbeTask
from s3prl_interfaces.probing.features import Extractor, examples, upstream_extractor, with_random_weights
from s3prl_interfaces.probing.linear import Score, probe

_NORMAL_95 = 1.96


@dataclass(frozen=True)
class Estimate:
    """An accuracy, or a difference of two, with half the width of its 95 % interval over test utterances."""

    value: float
    half_width: float


@dataclass(frozen=True)
class Result:
    """One upstream on one task.

    Attributes:
        task: Its name.
        unit: What is classified: ``frames`` or ``utterances``.
        classes: How many classes the training split has.
        train: How many training examples there are.
        test: How many test examples.
        chance: Accuracy of always answering the training split's commonest class.
        trained: A score for each layer.
        random: The same for each draw of random weights; empty where the upstream is no transformers model.
        log_mel: The score of log-mel filterbanks.
    """

    task: str
    unit: str
    classes: int
    train: int
    test: int
    chance: float
    trained: Sequence[Score]
    random: Sequence[Sequence[Score]]
    log_mel: Score

    @property
    def best(self) -> Score:
        """The best trained layer."""
        return self.trained[best_layer(self.trained)]

    @property
    def best_random(self) -> list[Score]:
        """Each draw's best layer."""
        return [scores[best_layer(scores)] for scores in self.random]


def best_layer(scores: Sequence[Score]) -> int:
    """The layer that does best on held-out TRAINING data: the test chooses nothing, so its best value flatters none."""
    return int(np.argmax([score.held_out for score in scores]))


def accuracy(scores: Sequence[Score]) -> Estimate:
    """Mean accuracy of one or more scores on the same test, such as one for each draw of random weights."""
    return _ratio(_correct(scores), scores[0].counts)


def difference(scores: Sequence[Score], others: Sequence[Score]) -> Estimate:
    """By how much the first are better; paired, since the test is the same."""
    return _ratio(_correct(scores) - _correct(others), scores[0].counts)


def measure(task: ProbeTask, upstream: nn.Module, seeds: Sequence[int], log_mel: Score) -> Result:
    """Probe every layer of an upstream, and of copies with random weights.

    Args:
        task: What to probe for.
        upstream: An S3PRL upstream.
        seeds: One for each draw of random weights.
        log_mel: What :func:`score_layers` gives for log-mel filterbanks.
    """
    trained = score_layers(task, upstream_extractor(upstream), "trained")
    random = []
    for seed in seeds:
        fresh = with_random_weights(upstream, seed)
        if fresh is not None:
            random.append(score_layers(task, upstream_extractor(fresh), f"random {seed}"))
    labels = {
        split: np.concatenate([utterance.labels for utterance in utterances])
        for split, utterances in (("train", task.train), ("test", task.test))
    }
    commonest = np.bincount(labels["train"]).argmax()
    return Result(
        task=task.name,
        unit=task.unit,
        classes=len(np.unique(labels["train"])),
        train=len(labels["train"]),
        test=len(labels["test"]),
        chance=float((labels["test"] == commonest).mean()),
        trained=trained,
        random=random,
        log_mel=log_mel,
    )


def score_layers(task: ProbeTask, extract: Extractor, name: str) -> list[Score]:
    """Probe each layer that ``extract`` gives; ``name`` is for the progress bar."""
    train, test = (examples(task, split, extract, name) for split in ("train", "test"))
    layers = tqdm(range(len(train.layers)), desc=f"{task.name}: {name}, probes", unit="layer", disable=None)
    return [probe(train, test, layer, len(task.classes)) for layer in layers]


def _correct(scores: Sequence[Score]) -> NDArray[np.float64]:
    return np.mean([score.correct for score in scores], axis=0)


def _ratio(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> Estimate:
    """Ratio of two totals over utterances; its variance is that of a ratio estimator over clusters (Cochran 1977, 6.4).

    An utterance's frames come and go together, so they are no independent samples.
    """
    number, total = len(counts), counts.sum()
    value = sums.sum() / total
    residuals = sums - value * counts
    variance = number / max(1, number - 1) * (residuals**2).sum() / total**2
    return Estimate(float(value), float(_NORMAL_95 * np.sqrt(variance)))
