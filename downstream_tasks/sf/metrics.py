"""SUPERB's metrics of slots (``s3prl/downstream/ctc/metric.py``), by S3PRL's names.

A text is ``PLAY B-artist THE BEATLES E-artist``. A slot is found by its two tags, not by whether they make sense: tags
within a slot, or without their other half, are no slots, and ``E-playlist_owner`` also ends ``B-playlist``, as it does
in S3PRL: it is what SUPERB's scores count.
"""

import re
from collections.abc import Callable

from downstream_tasks.text_metrics import METRICS as TEXT_METRICS
from downstream_tasks.text_metrics import Metric, Texts, cer, wer

Slots = dict[str, list[str]]
"""The values of each type of slot, in the order of the text."""

_SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
_BEGIN = re.compile(r"B-\S+ ")
_END = re.compile(r" E-\S+")
_SPACES = re.compile(" +")

_WORST = 100
"""S3PRL takes no value whose error rate is as high as this for the nearest one."""


def find_slots(text: str) -> list[tuple[str, str]]:
    """Type and value of each slot; a value has the tags that are within it."""
    return _SLOT.findall(_SPACES.sub(" ", text))


def without_tags(text: str) -> str:
    """The words alone."""
    return _END.sub("", _BEGIN.sub("", _SPACES.sub(" ", text)))


def slot_type_f1(hypotheses: Texts, references: Texts) -> float:
    """Mean over utterances of the F1 of the types that are there; 1 where there is none on either side."""
    scores = []
    for hypothesis, reference in _pairs(hypotheses, references):
        total = len(hypothesis) + len(reference)
        scores.append(2 * len(hypothesis.keys() & reference.keys()) / total if total else 1.0)
    return sum(scores) / len(scores)


def slot_value_cer(hypotheses: Texts, references: Texts) -> float:
    """Character errors of the slots' values by reference characters, see :func:`_value_error_rate`."""
    return _value_error_rate(cer, hypotheses, references)


def slot_value_wer(hypotheses: Texts, references: Texts) -> float:
    """Word errors of the slots' values by reference words, see :func:`_value_error_rate`."""
    return _value_error_rate(wer, hypotheses, references)


def slot_edit_f1_full(hypotheses: Texts, references: Texts) -> float:
    """F1 in percent of values that are right to the letter, over all types, see :func:`_edit_f1`."""
    return _edit_f1(hypotheses, references, full=True)


def slot_edit_f1_part(hypotheses: Texts, references: Texts) -> float:
    """F1 in percent of values that are right to the letter, over the reference's types, see :func:`_edit_f1`."""
    return _edit_f1(hypotheses, references, full=False)


METRICS = {
    "slot_type_f1": Metric(slot_type_f1, higher_is_better=True),
    "slot_value_cer": Metric(slot_value_cer),
    "slot_value_wer": Metric(slot_value_wer),
    "slot_edit_f1_full": Metric(slot_edit_f1_full, higher_is_better=True),
    "slot_edit_f1_part": Metric(slot_edit_f1_part, higher_is_better=True),
    "wer": TEXT_METRICS["wer"],
    "cer": TEXT_METRICS["cer"],
}
"""By S3PRL's names. ``wer`` and ``cer`` are of the whole texts, tags included."""


def _pairs(hypotheses: Texts, references: Texts) -> list[tuple[Slots, Slots]]:
    pairs = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        found: tuple[Slots, Slots] = ({}, {})
        for slot, value in find_slots(hypothesis):
            found[0].setdefault(slot, []).append(without_tags(value))
        for slot, value in find_slots(reference):
            found[1].setdefault(slot, []).append(value)
        pairs.append(found)
    return pairs


def _value_error_rate(rate: Callable[[Texts, Texts], float], hypotheses: Texts, references: Texts) -> float:
    """Error rate over all values of the reference.

    Each is compared with the nearest hypothesis of its type, which may serve several, or with nothing where there is
    none. Slots that only the hypothesis has do not count. With no slot in any reference there is nothing to get wrong:
    0.0, where S3PRL divides by zero (D22).
    """
    nearest, values = [], []
    for hypothesis, reference in _pairs(hypotheses, references):
        for slot, wanted in reference.items():
            for value in wanted:
                rates = {found: rate([found], [value]) for found in hypothesis.get(slot, [])}
                best = min(rates, key=rates.__getitem__, default="")
                nearest.append(best if rates.get(best, 0) < _WORST else "")
                values.append(value)
    return rate(nearest, values) if values else 0.0


def _edit_f1(hypotheses: Texts, references: Texts, *, full: bool) -> float:
    """F1 in percent over all values.

    A value of the reference is right if the hypothesis has the same among those of its type; else it is missed, and
    if the type is there at all, something wrong was found, too. ``full`` also counts as wrong what the hypothesis has
    of types that the reference lacks. With nothing to count: 100.0, where S3PRL divides by zero (D22).
    """
    right = missed = wrong = 0
    for hypothesis, reference in _pairs(hypotheses, references):
        for slot, values in reference.items():
            for value in values:
                if value in hypothesis.get(slot, []):
                    right += 1
                else:
                    missed += 1
                    wrong += slot in hypothesis
        if full:
            wrong += sum(len(values) for slot, values in hypothesis.items() if slot not in reference)
    total = 2 * right + missed + wrong
    return 100 * 2 * right / total if total else 100.0
