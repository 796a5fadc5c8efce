"""From a figure to files, and to SVG that can stand inside a page beside others."""

import io
import re
import warnings
from typing import Any
from xml.etree.ElementTree import Element, fromstring

import matplotlib
from matplotlib.figure import Figure

from s3prl_interfaces.results.report.figures import styled
from s3prl_interfaces.results.report.markup import element
from s3prl_interfaces.results.report.palette import VARIABLES

# An id that another element points to; colours are three or six digits and stand alone.
_REFERENCE = re.compile(r"(?:(?<=^)|(?<=url\())#([\w.-]+)")
_FONT = re.compile(r"\bfont: (?:(\d+) )?([\d.]+px) [^;]*")

PNG_DPI = 200
REM_PER_INCH = 6.6
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def to_png(figure: Figure) -> bytes:
    """Return a picture on white."""
    return _save(figure, "png", "", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})


def to_svg(figure: Figure, name: str) -> bytes:
    """Return a drawing on white that stands alone; ``name`` makes its ids."""
    return _save(figure, "svg", name, facecolor="white", metadata=NO_METADATA)


def inline_svg(figure: Figure, name: str, title: str, description: str) -> Element:
    """Return a drawing for a page: transparent, in the page's colours and font, with ids that begin with ``name``.

    Args:
        figure: What to draw.
        name: Letters, digits, ``-`` and ``_``; unlike that of any other figure of the page.
        title: What is shown, in a line, for who cannot see it.
        description: What it shows, in words.
    """
    # Written by Matplotlib just now: no foreign XML.
    drawing = fromstring(_save(figure, "svg", name, transparent=True, metadata=NO_METADATA))  # noqa: S314
    used = {match for node in drawing.iter() for value in node.attrib.values() for match in _REFERENCE.findall(value)}
    for node in list(drawing.iter()):
        for child in list(node):
            # The style sheet would hold for the whole page; it stands in the page's own.
            if _local(child.tag) in ("metadata", "style"):
                node.remove(child)
        node.tag = _local(node.tag)
        node.attrib = {
            _local(key): _inlined(_local(key), value, name)
            for key, value in node.attrib.items()
            if key != "id" or value in used
        }
        # Indentation means something in text only.
        node.tail = None
        node.text = node.text if node.tag == "text" else None
    drawing.attrib = {
        "viewBox": drawing.attrib["viewBox"],
        "style": f"--width: {figure.get_figwidth() * REM_PER_INCH:.1f}rem",
        "role": "img",
        "aria-labelledby": f"{name}--title {name}--desc",
    }
    drawing.insert(0, element("title", title, id=f"{name}--title"))
    drawing.insert(1, element("desc", description, id=f"{name}--desc"))
    return drawing


def _save(figure: Figure, format: str, salt: str, **options: Any) -> bytes:
    file = io.BytesIO()
    with styled(), matplotlib.rc_context({"svg.hashsalt": salt}), warnings.catch_warnings():
        # A name in a script that the font lacks is a box in the PNG; the SVG and the page have it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(file, format=format, **options)
    return file.getvalue()


def _inlined(key: str, value: str, name: str) -> str:
    """Rewrite one attribute: ids are this figure's, colours are variables, the font is the page's."""
    if key == "id":
        return f"{name}--{value}"
    value = _REFERENCE.sub(rf"#{name}--\1", value)
    if key == "style":
        value = re.sub(r"font-family: [^;]*;? ?", "", _FONT.sub(_spelt_out, value))
        value = re.sub(r"#[0-9a-f]{6}\b", lambda color: _variable(color[0]), value)
    if key in ("d", "x", "y", "transform"):
        value = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", value)
    return value


def _spelt_out(font: re.Match[str]) -> str:
    """Matplotlib before 3.9 writes ``font: 700 9px NAMES``, later ones each property by itself."""
    weight, size = font.groups()
    return f"font-size: {size}" + (f"; font-weight: {weight}" if weight else "")


def _variable(color: str) -> str:
    return f"var(--{VARIABLES[color]})" if color in VARIABLES else color


def _local(name: str) -> str:
    return name.rsplit("}", 1)[-1]
