"""Error rates of texts, with S3PRL's names (``s3prl/downstream/ctc/metric.py``)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from downstream_tasks.ctc import error_rate

Texts = Sequence[str]


@dataclass(frozen=True)
class Metric:
    """A metric of hypotheses and references."""

    compute: Callable[[Texts, Texts], float]
    higher_is_better: bool = False


def wer(hypotheses: Texts, references: Texts) -> float:
    """Word errors by reference words of all utterances.

    A space ends a word, as in S3PRL: two spaces have an empty word between them, and an empty text is one empty word.
    """
    return error_rate([text.split(" ") for text in hypotheses], [text.split(" ") for text in references])


def cer(hypotheses: Texts, references: Texts) -> float:
    """Character errors by reference characters of all utterances; spaces count."""
    return error_rate(hypotheses, references)


METRICS = {
    "per": Metric(wer),  # phones are written as words
    "wer": Metric(wer),
    "cer": Metric(cer),
}
"""By S3PRL's names."""
