"""What a run said about each utterance: reads the predictions that lie beside its ``results.json``."""

import math
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import editdistance
import numpy as np

from s3prl_interfaces.errors import ResultError
from s3prl_interfaces.results.record import RunResult
from s3prl_interfaces.results.scores import Counted, Scores, Trials

__all__ = ["Counted", "Scores", "Trials", "read_scores"]

TOLERANCE = 1e-4
"""How far the score of the predictions may be from that of ``results.json``: some of them were float32."""

Said = list[tuple[str, str, str]]
"""Name, prediction and truth of each utterance or trial, sorted by name."""


def read_scores(result: RunResult, folder: Path) -> Scores | None:
    """What a run scored on each utterance, by the metric and on the split that runs of the task are compared by.

    Args:
        result: The run's ``results.json``.
        folder: Where that lies.

    Returns:
        None where the task or its metric is not known here: S3PRL's own tasks leave other files.

    Raises:
        ResultError: A file is missing or malformed, the predictions and the truth are of different utterances, or
            their score is not that of ``results.json``: then they are of other weights.
    """
    reader = _READERS.get((result.task, result.primary.name))
    if reader is None:
        return None
    scores = reader(result, folder)
    if not abs(scores.value - result.primary.value) <= TOLERANCE:
        raise ResultError(
            f"{folder}: the predictions of {result.primary.split} have {result.primary.name} {scores.value:.6g}, but "
            f"results.json says {result.primary.value:.6g}: they are of other weights. Evaluate the run again."
        )
    return scores


def _read_accuracy(result: RunResult, folder: Path) -> Counted:
    said = _read_classes(result, folder)
    return _counted(said, [(predicted == true, 1) for _, predicted, true in said], folder)


def _read_balanced_accuracy(result: RunResult, folder: Path) -> Counted:
    pooled = _read_accuracy(result, folder)
    truth = [true for _, _, true in _read_classes(result, folder)]
    classes = np.unique(truth, return_inverse=True)[1].astype(np.int64)
    return Counted(pooled.names, pooled.numerators, pooled.denominators, classes)


def _read_classes(result: RunResult, folder: Path) -> Said:
    """IC has three slots in a line: all must be right."""
    part = result.primary.split if result.fold is None else f"{result.primary.split}_{result.fold}"
    suffix, separator = ("csv", ",") if result.task == "ic" else ("txt", " ")
    return _read(folder / f"{part}_predict.{suffix}", folder / f"{part}_truth.{suffix}", separator)


def _read_word_errors(result: RunResult, folder: Path) -> Counted:
    """ASR's WER, in percent."""
    decoder = "noLM" if result.protocol.get("decoder", "greedy") == "greedy" else "LM"
    said = _read_texts(folder, f"{result.primary.split}-{decoder}")
    return _counted(said, [_edits(predicted.split(), true.split(), 100) for _, predicted, true in said], folder)


def _read_phone_errors(result: RunResult, folder: Path) -> Counted:
    """PR's PER: as S3PRL, a space ends a phone, so an empty text is one empty phone."""
    said = _read_texts(folder, result.primary.split)
    return _counted(said, [_edits(predicted.split(" "), true.split(" ")) for _, predicted, true in said], folder)


def _read_slot_types(result: RunResult, folder: Path) -> Counted:
    """SF's F1 of the types of slots, which SUPERB takes of each utterance and then averages."""
    said = _read_texts(folder, result.primary.split)
    return _counted(said, [(_f1(_slot_types(predicted), _slot_types(true)), 1) for _, predicted, true in said], folder)


def _read_trials(result: RunResult, folder: Path) -> Trials:
    files = [folder / f"{result.primary.split}_{kind}.txt" for kind in ("predict", "truth")]
    said = _read(files[0], files[1], " ")
    for name, score, label in said:
        if not _is_finite(score) or label not in ("0", "1"):
            raise ResultError(
                f"{folder}: the trial {name} has score {score!r} and truth {label!r}, which must be a finite number "
                "and 0 or 1. Evaluate the run again."
            )
    return Trials(
        tuple(_utterances_of(name, files[0]) for name, _, _ in said),
        np.array([float(score) for _, score, _ in said]),
        np.array([label == "1" for _, _, label in said], dtype=bool),
    )


_READERS: dict[tuple[str, str], Callable[[RunResult, Path], Scores]] = {
    ("asr", "wer"): _read_word_errors,
    ("er", "acc"): _read_accuracy,
    ("er", "balanced_acc"): _read_balanced_accuracy,
    ("ic", "acc"): _read_accuracy,
    ("ks", "acc"): _read_accuracy,
    ("ks", "balanced_acc"): _read_balanced_accuracy,
    ("pr", "per"): _read_phone_errors,
    ("sf", "slot_type_f1"): _read_slot_types,
    ("sid", "acc"): _read_accuracy,
    ("sid", "balanced_acc"): _read_balanced_accuracy,
    ("sv", "EER"): _read_trials,
}
"""By task and metric."""


def _edits(predicted: list[str], true: list[str], unit: float = 1) -> tuple[float, float]:
    return unit * editdistance.eval(predicted, true), len(true)


def _slot_types(text: str) -> set[str]:
    """Types of the slots ``B-type value E-type``, as S3PRL finds them (``s3prl/downstream/ctc/metric.py``)."""
    return set(re.findall(r"B-(\S+) .+? E-\1", re.sub(" +", " ", text)))


def _f1(predicted: set[str], true: set[str]) -> float:
    total = len(predicted) + len(true)
    return 2 * len(predicted & true) / total if total else 1.0


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


_VOXCELEB = re.compile(r"(.+)_(id\d+-[\w-]{11}-\d+)")
"""Two utterances, the second VoxCeleb's ``speaker-video-number``: a video's name, of 11 characters, may have ``_``."""


def _utterances_of(trial: str, path: Path) -> tuple[str, str]:
    """The two utterances of ``first_second``."""
    match = _VOXCELEB.fullmatch(trial)
    parts = match.groups() if match else tuple(trial.split("_"))
    if len(parts) != 2:
        raise ResultError(
            f"{path}: it cannot be told which two utterances the trial {trial} is of. Their names must be as VoxCeleb's"
            " (`id10001-1zcIwhmdeo4-00001`) or without `_`."
        )
    return parts[0], parts[1]


def _counted(said: Said, counts: Iterable[tuple[float, float]], folder: Path) -> Counted:
    names = tuple(name for name, _, _ in said)
    twice = sorted({name for name, following in pairwise(names) if name == following})
    if twice:
        raise ResultError(
            f"{folder}: {len(twice)} utterances are there more than once, such as {twice[0]}: runs cannot be compared "
            "utterance by utterance."
        )
    columns = np.array(list(counts), dtype=np.float64).reshape(-1, 2).T
    return Counted(names, columns[0], columns[1])


def _read_texts(folder: Path, part: str) -> Said:
    return _read(folder / f"{part}-hyp.ark", folder / f"{part}-ref.ark", " ")


def _read(predictions: Path, truth: Path, separator: str) -> Said:
    predicted, true = _read_lines(predictions, separator), _read_lines(truth, separator)
    names = [name for name, _ in true]
    if [name for name, _ in predicted] != names:
        differing = {name for name, _ in predicted} ^ set(names)
        example = f", such as {min(differing)}" if differing else ""
        raise ResultError(
            f"{predictions} and {truth.name} are not of the same utterances ({len(predicted)} and {len(true)} lines, "
            f"{len(differing)} names in one only{example}). Evaluate the run again."
        )
    return [(name, said, meant) for (name, said), (_, meant) in zip(predicted, true, strict=True)]


def _read_lines(path: Path, separator: str) -> list[tuple[str, str]]:
    """Name and what follows it of each line, sorted by name."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:  # not UTF-8, or a split that is no file's name
        raise ResultError(f"{path} cannot be read ({error}): evaluate the run again.") from error
    if lines[-1] == "":
        lines.pop()
    parts = [line.partition(separator) for line in lines]
    for number, (name, found, _) in enumerate(parts, start=1):
        if not name or not found:
            raise ResultError(
                f"{path}, line {number}: must be a name, {separator!r} and what was said, but is {lines[number - 1]!r}."
                " Evaluate the run again."
            )
    return sorted(((name, said) for name, _, said in parts), key=lambda part: part[0])
