"""Which runs count in a column: those of complete seeds, and of the learning rate that is best on dev."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from s3prl_interfaces.results.board import Unit
from s3prl_interfaces.results.runs import Run

Rate = float | None
"""A learning rate, ``None`` in results that do not tell."""

Seed = tuple[int, int | None]
"""Seed and data seed: runs that differ in either are two measurements, never two folds of one."""


@dataclass(frozen=True)
class Choice:
    """The runs of one column that count."""

    units: Mapping[str, tuple[Unit, ...]]
    """Label of the row -> its runs, of each seed. Rows of which nothing counts are not there."""
    rates_tried: Mapping[str, tuple[Rate, ...]]
    """Label of the row -> the learning rates that were chosen from."""
    folds: tuple[str, ...]
    notes: tuple[str, ...]


def choose_runs(runs: Mapping[str, Sequence[Run]]) -> Choice:
    """Choose the runs of one column that count.

    Seeds that lack a fold are left out: a mean over fewer folds is another quantity, not a noisier one. Of several
    learning rates the one with the best mean on dev counts, over seeds and folds, as SUPERB tunes it; of equals the
    lowest. Where some seeds were run with every learning rate, only those decide.

    Args:
        runs: Label of the row -> all its runs of one task, split, metric and protocol.
    """
    everything = [run for of_label in runs.values() for run in of_label]
    task = everything[0].result.task
    folds = {run.result.fold for run in everything}
    units, tried, notes = {}, {}, []
    for label, of_label in runs.items():
        by_rate, left_out = _complete(of_label, folds)
        if None in by_rate and len(by_rate) > 1:
            left_out.append("is left out where it does not say its learning rate (results of an older version)")
            del by_rate[None]
        if by_rate:
            if best := _best_on_dev(by_rate):
                units[label] = tuple(best.values())
                tried[label] = tuple(by_rate)
            else:
                left_out.append(
                    f"is left out: it was run with several learning rates ({_names(by_rate)}) and has no score on dev "
                    "to choose by. Give the folders of one learning rate only"
                )
        notes += [f"{task}: {label} {what}." for what in left_out]
    notes += [f"{task}: {note}" for note in _rate_notes(units, tried)]
    return Choice(units, tried, tuple(sorted(fold for fold in folds if fold is not None)), tuple(notes))


def seed_name(seed: Seed) -> str:
    """Name a seed, and the data seed where it is another."""
    return f"seed {seed[0]}" + (f" (data {seed[1]})" if seed[1] not in (None, seed[0]) else "")


def rate_name(rate: Rate) -> str:
    """Write a learning rate as people do: ``1e-4``, ``2.5e-3``."""
    if rate is None:
        return "not recorded"
    mantissa, exponent = f"{rate:e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}" if rate else "0"


def _complete(runs: Sequence[Run], folds: set[str | None]) -> tuple[dict[Rate, dict[Seed, Unit]], list[str]]:
    """Sort the runs of a row by learning rate and seed; and say which seeds lack a fold."""
    groups: dict[tuple[Rate, Seed], dict[str | None, Run]] = defaultdict(dict)
    for run in runs:
        result = run.result
        groups[result.learning_rate, (result.seed, result.data_seed)][result.fold] = run
    several = len({rate for rate, _ in groups}) > 1
    complete: dict[Rate, dict[Seed, Unit]] = defaultdict(dict)
    left_out = []
    for (rate, seed), by_fold in sorted(groups.items(), key=_order):
        missing = sorted(str(fold) for fold in folds - by_fold.keys())
        if missing:
            name = f"{rate_name(rate)}, {seed_name(seed)}" if several else seed_name(seed)
            left_out.append(f"with {name} is left out, it lacks {', '.join(missing)}")
        else:
            complete[rate][seed] = tuple(run for _, run in sorted(by_fold.items(), key=lambda item: item[0] or ""))
    return dict(complete), left_out


def _order(group: tuple[tuple[Rate, Seed], object]) -> tuple[float, int, int]:
    rate, (seed, data_seed) = group[0]
    return rate or 0, seed, -1 if data_seed is None else data_seed


def _best_on_dev(by_rate: Mapping[Rate, Mapping[Seed, Unit]]) -> Mapping[Seed, Unit]:
    """Return the runs of the learning rate that counts; none if there are several and nothing to choose by."""
    if len(by_rate) == 1:
        return next(iter(by_rate.values()))
    chosen_by = {_chosen_by(run) for units in by_rate.values() for unit in units.values() for run in unit}
    by = chosen_by.pop()
    if by is None or chosen_by:
        return {}
    shared = set.intersection(*(set(units) for units in by_rate.values()))

    def on_dev(units: Mapping[Seed, Unit]) -> float:
        deciding = [unit for seed, unit in units.items() if not shared or seed in shared]
        return fmean(fmean(chosen.value for run in unit if (chosen := run.result.selection)) for unit in deciding)

    _, _, higher_is_better = by
    return (max if higher_is_better else min)(by_rate.values(), key=on_dev)


def _chosen_by(run: Run) -> tuple[str, str, bool] | None:
    selection = run.result.selection
    return None if selection is None else (selection.split, selection.name, selection.higher_is_better)


def _rate_notes(units: Mapping[str, Sequence[Unit]], tried: Mapping[str, Sequence[Rate]]) -> list[str]:
    """Say which learning rate counts where several were tried, and where the rows did not try the same."""
    alike = len({tuple(rates) for rates in tried.values()}) < 2
    chosen = {label: units[label][0][0].result for label, rates in tried.items() if len(rates) > 1}
    notes = []
    if chosen:
        primary = next(iter(chosen.values())).primary
        splits = sorted({selection.split for result in chosen.values() if (selection := result.selection)})
        notes.append(
            f"of the learning rates{f' {_names(next(iter(tried.values())))}' if alike else ''} the best on "
            f"{' and '.join(splits)} counts: "
            f"{', '.join(f'{label} {rate_name(result.learning_rate)}' for label, result in chosen.items())}."
        )
        if primary.split in splits:
            notes.append(f"the learning rate was chosen on {primary.split}, which is also what is scored.")
    if not alike:
        rows = "; ".join(f"{label} {_names(rates)}" for label, rates in tried.items())
        notes.append(f"the rows did not try the same learning rates, so this is not like with like: {rows}.")
    return notes


def _names(rates: Iterable[Rate]) -> str:
    return ", ".join(map(rate_name, rates))
