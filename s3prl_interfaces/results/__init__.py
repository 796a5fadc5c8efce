"""What runs leave behind, and how they compare.

A run calls :func:`write_result`; the leaderboard is
``render_leaderboard(build_leaderboard(load_results(dirs)), "table")``.
"""

from s3prl_interfaces.results.leaderboard import DEFAULT_BASELINE, Leaderboard, build_leaderboard
from s3prl_interfaces.results.record import SCHEMA_VERSION, Primary, RunResult, config_sha256
from s3prl_interfaces.results.render import FORMATS, render_leaderboard
from s3prl_interfaces.results.store import RESULT_FILE, find_results, load_results, read_result, write_result

__all__ = [
    "DEFAULT_BASELINE",
    "FORMATS",
    "RESULT_FILE",
    "SCHEMA_VERSION",
    "Leaderboard",
    "Primary",
    "RunResult",
    "build_leaderboard",
    "config_sha256",
    "find_results",
    "load_results",
    "read_result",
    "render_leaderboard",
    "write_result",
]
