from pathlib import Path

import pytest

from s3prl_interfaces.results import Found, Primary, Run, RunResult, build_leaderboard


@pytest.fixture
def make_result():
    """Build a result from one score; every other field can be replaced."""

    def make(value=0.5, *, metric="acc", split="test", higher_is_better=True, trained=13, **fields):
        values = {
            "task": "ic",
            "upstream": "tiny",
            "interface": "weighted_sum",
            "seed": 1,
            "metrics": {split: {metric: value, "step": 4000}},
            "primary": Primary(name=metric, split=split, value=value, higher_is_better=higher_is_better),
            "parameters": {"interface": trained, "downstream": 100},
            "config_sha256": "a" * 64,
        }
        return RunResult(**{**values, **fields})

    return make


@pytest.fixture
def board():
    """Build a leaderboard from results that stand in no folder."""

    def make(results, *arguments, **options):
        runs = tuple(Run(Path(f"nowhere/{number}"), result) for number, result in enumerate(results))
        return build_leaderboard(Found(runs, ()), *arguments, **options)

    return make


@pytest.fixture
def table(board):
    """Build the only table of a leaderboard."""

    def make(results, *arguments, **options):
        (only,) = board(results, *arguments, **options).tables
        return only

    return make
