"""Writing the report: whole or not at all."""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from s3prl_interfaces.errors import ResultError, UserError
from s3prl_interfaces.results.comparisons import add_comparisons
from s3prl_interfaces.results.leaderboard import DEFAULT_BASELINE, build_leaderboard
from s3prl_interfaces.results.published import Published
from s3prl_interfaces.results.runs import load_runs


def write_report(
    places: Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    figures: str | os.PathLike[str] | None = None,
    baseline: str = DEFAULT_BASELINE,
    published: Iterable[Published] = (),
) -> None:
    """Write one self-contained HTML page about all runs below some folders.

    Args:
        places: Directories to search, or result files themselves.
        out: The page; a file that is there is replaced.
        figures: A folder that every figure is also written to, as PNG and SVG; made if it is not there.
        baseline: The row that differences are taken to.
        published: Figures to be shown below those of the same upstream.

    Raises:
        UserError: The extra ``report`` is not installed.
        ResultError: There are no results, or a file cannot be written.
        ConfigError: ``baseline`` is not one row of the leaderboard.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UserError("Matplotlib draws it, but is not installed: pip install 's3prl-interfaces[report]'") from error
    from s3prl_interfaces.results.report.page import make_page
    from s3prl_interfaces.results.report.svg import to_png, to_svg

    out = Path(out)
    if out.is_dir() or not out.parent.is_dir():
        what = "is a folder" if out.is_dir() else f"is in {out.parent}, which is no folder"
        raise ResultError(f"The report cannot be written to {out}: it {what}. Give the name of a file, as report.html.")
    page = make_page(add_comparisons(build_leaderboard(load_runs(places), baseline, published)))
    written = {out: page.html.encode()}
    if figures is not None:
        for picture in page.pictures:
            written[Path(figures) / f"{picture.name}.png"] = to_png(picture.figure)
            written[Path(figures) / f"{picture.name}.svg"] = to_svg(picture.figure, picture.name)
    _write_all(written)


def _write_all(contents: Mapping[Path, bytes]) -> None:
    """Write files beside their places, then move all of them there: a failure leaves what was there before."""
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_bytes(content)
        for path in contents:
            temporary[path].replace(path)
    except OSError as error:
        raise ResultError(f"The report could not be written: {error}.") from error
    finally:
        for path in temporary.values():
            with contextlib.suppress(OSError):
                path.unlink()
