"""What a frame is recognised as: its k-means cluster, of MFCCs in the first round, of a middle layer in the second.

As HuBERT (Hsu et al., 2021, section II and IV.A): 39-dimensional MFCCs (13 and their first two differences), then the
hidden states of the sixth of twelve blocks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from s3prl_interfaces.tiny_hubert.corpus import SAMPLE_RATE, Corpus

_FIT_FRAMES = 400_000


def mfcc(wav: Tensor) -> Tensor:
    """The MFCCs of an utterance at HuBERT's 50 frames a second.

    Args:
        wav: ``(time,)``, float32, at 16 kHz.

    Returns:
        ``(frames, 39)``: 13 MFCCs with Kaldi's settings, and their first and second differences. Frame t is made of
        the samples ``320 t`` to ``320 t + 400``, those that HuBERT's frame t sees.
    """
    static = torchaudio.compliance.kaldi.mfcc(wav[None] * 32768, sample_frequency=SAMPLE_RATE, use_energy=False).T
    first = torchaudio.functional.compute_deltas(static)
    second = torchaudio.functional.compute_deltas(first)
    return torch.cat([static, first, second]).T[::2]


@dataclass(frozen=True)
class Targets:
    """The cluster of every frame of a corpus.

    Attributes:
        labels: ``(frames,)``, int16: those of all utterances, one behind another.
        ends: ``(utterances,)``: where each utterance's end.
    """

    labels: NDArray[np.int16]
    ends: NDArray[np.int64]

    def of(self, utterance: int) -> NDArray[np.int16]:
        """The clusters of one utterance, ``(frames,)``."""
        return self.labels[self.ends[utterance - 1] if utterance else 0 : self.ends[utterance]]


def cluster(corpus: Corpus, features: Callable[[Tensor], Tensor], clusters: int, seed: int, name: str) -> Targets:
    """Fit k-means to frames of some utterances, and label the frames of all.

    Args:
        corpus: The speech.
        features: From a waveform ``(time,)`` to ``(frames, width)``.
        clusters: How many.
        seed: Of the utterances that k-means is fitted to, and of its start.
        name: Shown with the progress.
    """
    from sklearn.cluster import MiniBatchKMeans  # an extra: only pre-training needs it

    sample: list[NDArray[np.float32]] = []
    count = 0
    for index in Random(seed).sample(range(len(corpus)), len(corpus)):
        sample.append(features(corpus.wav(index)).numpy())
        count += len(sample[-1])
        if count >= _FIT_FRAMES:
            break
    model = MiniBatchKMeans(clusters, batch_size=10_000, n_init=5, max_no_improvement=50, random_state=seed)
    model.fit(np.concatenate(sample))
    labels = [
        model.predict(features(corpus.wav(index)).numpy()).astype(np.int16)
        for index in tqdm(range(len(corpus)), desc=f"clusters of {name}", unit="wav", disable=None)
    ]
    return Targets(np.concatenate(labels), np.cumsum([len(part) for part in labels]))
