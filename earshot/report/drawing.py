"""The style of the report's charts, saved as SVG for light and dark pages and as PNG for papers.

The dark SVG is the light one with other colors. Text stays text, so that a browser can render any script. Data colors
are those of Okabe and Ito with a contrast of 3:1 on both backgrounds.
"""

import io
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from earshot.core.messages import printable
from earshot.results.charts import COLORS, GRID

INK, MUTED = "#1c1e21", "#5b6068"
BLUE, VERMILION, GREEN, PURPLE = (color.lower() for color in COLORS[:4])
DARK = {INK: "#e7e4df", MUTED: "#a9aeb4", GRID: "#33383d", BLUE: "#56b4e9"}
PIXELS_AN_INCH = 96  # of CSS
PNG_DPI = 150
LABEL_LENGTH = 24  # characters
COLUMN = 3.35  # inches: a column of a two-column paper
PAPER: dict[Any, Any] = {
    "font.size": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # TrueType, whole: journals refuse Type 3
}
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
# Color, marker and line style of the networks.
NETWORKS = {
    "encoder": (BLUE, "o", "-"),
    "wrong_sound": (VERMILION, "X", "--"),
    "random": (GREEN, "s", ":"),
}
OTHERS = (PURPLE, "D", "-.")


def save_chart(draw: Callable[[], Figure], place: Path) -> tuple[int, int]:
    """Write <place>.svg, <place>-dark.svg and <place>.png; return the width and height of the first in CSS pixels."""
    with with_look(), warnings.catch_warnings():
        # Installed fonts may lack glyphs of an annotation; in the SVG the browser renders the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw()
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
        figure.set_layout_engine("none")  # keeps the layout, which takes longer than the drawing
        figure.savefig(place.with_suffix(".png"), dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    svg = text.getvalue()
    place.with_suffix(".svg").write_text(svg, encoding="utf-8")
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    place.with_name(f"{place.name}-dark.svg").write_text(svg, encoding="utf-8")
    width, height = figure.get_size_inches() * PIXELS_AN_INCH
    return round(width), round(height)


def save_paper_chart(draw: Callable[[], Figure], place: Path) -> tuple[int, int]:
    """Write a chart at column width as <place>.pdf, .svg and .png; return its width and height in CSS pixels."""
    with with_look(), matplotlib.rc_context(PAPER), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = draw()
        figure.savefig(place.with_suffix(".pdf"), metadata={"CreationDate": None})
        figure.set_layout_engine("none")
        figure.savefig(place.with_suffix(".svg"), facecolor="white", metadata={"Date": None})
        figure.savefig(place.with_suffix(".png"), dpi=2 * PNG_DPI, facecolor="white", metadata={"Software": None})
    width, height = figure.get_size_inches() * PIXELS_AN_INCH
    return round(width), round(height)


def with_look() -> AbstractContextManager[None]:
    """A context in which charts have the report's style."""
    return matplotlib.rc_context(LOOK)


def label(text: str) -> str:
    """Untrusted text as the label of a chart: one short line that is valid in SVG."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= LABEL_LENGTH else f"{text[: LABEL_LENGTH - 1]}…"
