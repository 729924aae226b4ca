"""The look of the report's charts, and how one is saved: SVG for light and for dark pages, and PNG for a paper.

The dark SVG is the light one with its colours exchanged, so the two cannot differ otherwise. Letters stay letters,
which a browser sets in whatever script they are. Data colours are Okabe and Ito's with a contrast of 3:1 on both.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from earshot.core.text import printable
from earshot.results.charts import COLORS, GRID

INK, MUTED = "#1c1e21", "#5b6068"
BLUE, VERMILION, GREEN, PURPLE = (color.lower() for color in COLORS[:4])
DARK = {INK: "#e7e4df", MUTED: "#a9aeb4", GRID: "#33383d", BLUE: "#56b4e9"}
PIXELS_AN_INCH = 96  # of CSS
PNG_DPI = 150
LABEL_LENGTH = 24  # characters
LOOK: dict[Any, Any] = {
    "svg.hashsalt": "earshot",
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
}
# Of the networks: colour, marker, line.
NETWORKS = {
    "encoder": (BLUE, "o", "-"),
    "wrong_sound": (VERMILION, "X", "--"),
    "random": (GREEN, "s", ":"),
}
OTHERS = (PURPLE, "D", "-.")


def save_chart(draw: Callable[[], Figure], place: Path) -> tuple[int, int]:
    """Write <place>.svg, <place>-dark.svg and <place>.png; return the width and height of the first in CSS pixels."""
    with with_look(), warnings.catch_warnings():
        # The fonts at hand lack letters of some annotation; in the SVG they are text and a browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw()
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        figure.savefig(place.with_suffix(".png"), dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    svg = text.getvalue()
    place.with_suffix(".svg").write_text(svg, encoding="utf-8")
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    place.with_name(f"{place.name}-dark.svg").write_text(svg, encoding="utf-8")
    width, height = figure.get_size_inches() * PIXELS_AN_INCH
    return round(width), round(height)


def with_look() -> AbstractContextManager[None]:
    """Within it, charts have the report's look."""
    return matplotlib.rc_context(LOOK)


def label(text: str) -> str:
    """A stranger's text as a label of a chart: one short line that SVG can hold."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…"
