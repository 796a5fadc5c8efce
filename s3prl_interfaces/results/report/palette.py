"""Colours of the figures: light as drawn, dark where a page's reader prefers it.

Figures are drawn in the light colours; in a page each becomes the CSS variable of the same role, so that a page can
give it its dark value.
"""

INK = "#1f2328"
MUTED = "#59636e"
GRID = "#d9dee3"
WORSE = "#cf5200"
BETTER = "#0a6ebd"
WEIGHT = "#1b7a5a"

LINES = ("#0072b2", "#d55e00", "#008f68", "#a2479b", "#6f6a00", "#8c1d4f", "#3d3a9e", "#5f6770")
"""Dark enough on white (3:1 or more); markers tell lines apart too. After Okabe and Ito, and Paul Tol."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DASHES = ("-", "--", ":", "-.")
"""For more lines than there are colours."""

LINES_IN_THE_DARK = ("#4fb0ee", "#ff9248", "#2dcb9c", "#e08fda", "#cfc72e", "#f0749f", "#a5a1ff", "#a9b1ba")

VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    WORSE: "worse",
    BETTER: "better",
    WEIGHT: "weight",
    **{color: f"line-{index}" for index, color in enumerate(LINES)},
}
"""Drawn colour -> CSS variable."""

DARK = {
    "ink": "#e6edf3",
    "muted": "#9aa4af",
    "grid": "#343b43",
    "worse": "#f07b2e",
    "better": "#4fa6f0",
    "weight": "#37b48a",
    **{f"line-{index}": color for index, color in enumerate(LINES_IN_THE_DARK)},
}


def css_variables() -> str:
    """Return the style sheet's colours for both themes."""
    light = " ".join(f"--{name}: {color};" for color, name in VARIABLES.items())
    dark = " ".join(f"--{name}: {color};" for name, color in DARK.items())
    return f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}\n"
