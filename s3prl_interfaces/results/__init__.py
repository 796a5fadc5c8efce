"""What runs leave behind, and how they compare.

A run calls :func:`write_result`. The leaderboard is::

    board = add_comparisons(build_leaderboard(load_runs(folders), published=load_published()))
    text = render_leaderboard(board, "table")
"""

from s3prl_interfaces.results.board import Leaderboard
from s3prl_interfaces.results.comparisons import add_comparisons
from s3prl_interfaces.results.leaderboard import DEFAULT_BASELINE, build_leaderboard
from s3prl_interfaces.results.problems import Problem
from s3prl_interfaces.results.published import load_published
from s3prl_interfaces.results.record import SCHEMA_VERSION, Primary, RunResult, config_sha256
from s3prl_interfaces.results.render import FORMATS, render_leaderboard
from s3prl_interfaces.results.runs import Found, Run, load_results, load_runs
from s3prl_interfaces.results.store import RESULT_FILE, find_results, read_result, write_result

__all__ = [
    "DEFAULT_BASELINE",
    "FORMATS",
    "RESULT_FILE",
    "SCHEMA_VERSION",
    "Found",
    "Leaderboard",
    "Primary",
    "Problem",
    "Run",
    "RunResult",
    "add_comparisons",
    "build_leaderboard",
    "config_sha256",
    "find_results",
    "load_published",
    "load_results",
    "load_runs",
    "read_result",
    "render_leaderboard",
    "write_result",
]
