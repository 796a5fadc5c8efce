"""One door to every form that a leaderboard can be shown in."""

from s3prl_interfaces.errors import ConfigError, unknown_name
from s3prl_interfaces.results.board import Leaderboard
from s3prl_interfaces.results.latex import render_latex
from s3prl_interfaces.results.machine import render_csv, render_json
from s3prl_interfaces.results.markdown import render_markdown
from s3prl_interfaces.results.terminal import render_terminal

FORMATS = ("table", "markdown", "latex", "csv", "json")


def render_leaderboard(
    leaderboard: Leaderboard, format: str = "table", *, width: int | None = None, color: bool = False
) -> str:
    """Turn a leaderboard into text that ends in a newline.

    Args:
        leaderboard: What to show.
        format: ``table`` for a terminal, ``markdown`` for GitHub, ``latex`` for a paper, ``csv`` or ``json`` for a
            program.
        width: For ``table``: characters in a line; by default those of the terminal, or 80 without one.
        color: For ``table``: whether to use escape sequences.

    Raises:
        ConfigError: The format is unknown.
    """
    if format == "table":
        return render_terminal(leaderboard, width, color)
    if format == "markdown":
        return render_markdown(leaderboard)
    if format == "latex":
        return render_latex(leaderboard)
    if format == "csv":
        return render_csv(leaderboard)
    if format == "json":
        return render_json(leaderboard)
    raise ConfigError(unknown_name("format", format, FORMATS))
