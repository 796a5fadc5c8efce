"""What a reader must know before comparing the rows of a column."""

from collections import defaultdict

from s3prl_interfaces.results.choice import Choice, Seed, seed_name


def comparability_notes(choice: Choice) -> list[str]:
    """Say which folds a score is the mean of, and where rows differ in their config or their seeds."""
    if not choice.units:
        return []
    task = next(iter(choice.units.values()))[0][0].result.task
    notes = [*_folds(choice), *_configs(choice), *_seeds(choice)]
    return [f"{task}: {note}" for note in notes]


def _folds(choice: Choice) -> list[str]:
    """Two folds of five are not the task's score."""
    return [f"the mean of {', '.join(choice.folds)}."] if choice.folds else []


def _configs(choice: Choice) -> list[str]:
    """Folds differ in their config by design."""
    by_fold: dict[str | None, set[str]] = defaultdict(set)
    labels: dict[str, dict[str, None]] = defaultdict(dict)
    for label, units in choice.units.items():
        for run in (run for unit in units for run in unit):
            by_fold[run.result.fold].add(run.result.config_sha256)
            labels[run.result.config_sha256][label] = None
    if all(len(configs) == 1 for configs in by_fold.values()):
        return []
    configs = "; ".join(f"{config[:8]} ({', '.join(labels[config])})" for config in labels)
    return [
        "not all of these are comparable, their configs differ in more than interface, seed and learning rate: "
        f"{configs}."
    ]


def _seeds(choice: Choice) -> list[str]:
    """Results that do not tell their data seed are taken to have had the same."""
    seeds: dict[str, list[Seed]] = {
        label: [(unit[0].result.seed, unit[0].result.data_seed) for unit in units]
        for label, units in choice.units.items()
    }
    if any(data_seed is None for of_label in seeds.values() for _, data_seed in of_label):
        seeds = {label: [(seed, None) for seed, _ in of_label] for label, of_label in seeds.items()}
    if len({frozenset(of_label) for of_label in seeds.values()}) < 2:
        return []
    named = "; ".join(f"{label} {', '.join(map(seed_name, of_label))}" for label, of_label in seeds.items())
    return [f"not all rows have the same seeds: {named}."]
