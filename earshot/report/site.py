"""The folder of a report: pages from templates, images and sounds as files, charts as SVG and PNG.

Text from a corpus is untrusted: templates escape it, and file names never contain it. The names of media are hashes of
their bytes, so equal files are written once. No file contains a date, so a run always gives the same bytes.
"""

import hashlib
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from earshot.core.csv_files import write_csv
from earshot.core.errors import EarshotError
from earshot.evaluation.significance import ABOVE, LEARNED, NOT_ABOVE, TOO_FEW, UNTESTED, WORSE
from earshot.report import glossary
from earshot.report.drawing import save_chart, save_paper_chart
from earshot.report.figures import network_name

STATIC = ("report.css", "report.js", "icon.svg")
CAPTION_LENGTH = 120  # characters displayed of an annotation
DIGITS = 20  # hexadecimal digits in a file name
# By rank of a verdict: the class of its badge in the style sheet, and its sign.
BADGES = {
    WORSE: ("worse", "✗"),
    NOT_ABOVE: ("level", "–"),
    TOO_FEW: ("unknown", "?"),
    UNTESTED: ("unknown", "?"),
    ABOVE: ("above", "▲"),
    LEARNED: ("learned", "✓"),
}
FORMATS = {"JPEG": "jpg", "PNG": "png"}


@dataclass(frozen=True)
class ReportImage:
    """An image in the report: its file relative to the folder, and its size in px."""

    file: str
    width: int
    height: int


@dataclass(frozen=True)
class Numbers:
    """A table of numbers: its caption, the titles of columns, the rows, and the source file."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    source: str = ""

    def is_word(self, column: int) -> bool:
        """Whether a column holds words, which are left-aligned, and not numbers."""
        return all(isinstance(row[column], str) and not row[column][:1].isdigit() for row in self.rows)


@dataclass(frozen=True)
class Chart:
    """A chart in the report: figures/<name>.svg, its size, its description, its numbers, and what made it."""

    name: str
    width: int
    height: int
    caption: str
    alt: str
    numbers: Numbers | None = None
    made_by: str = ""


class Site:
    """A report in `folder`.

    Args:
        folder: emptied first.
        title: the name of the run, or of several.
        pages: file and title of each page in the navigation.
    """

    def __init__(self, folder: Path, title: str, pages: Mapping[str, str]) -> None:
        self.folder, self.pages, self.charts = folder, 0, 0
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("media", "figures"):
            (folder / name).mkdir(parents=True)
        for name in STATIC:
            (folder / name).write_bytes((resources.files(__package__) / "static" / name).read_bytes())
        self._written: set[str] = set()
        self._environment = _environment()
        self._environment.globals |= {"site": title, "pages": pages, "network_name": network_name, "badges": BADGES}

    def __str__(self) -> str:
        return f"{self.pages:,} pages, {self.charts:,} charts, {len(self._written):,} images and sounds"

    def write_page(self, file: str, template: str, **values: Any) -> None:
        """Write a page; `file` may lie in a subfolder, from which `up` leads back."""
        up = "../" * file.count("/")
        (self.folder / file).parent.mkdir(exist_ok=True)
        stream = self._environment.get_template(template).stream(file=file, up=up, **values)
        stream.enable_buffering(100)
        with (self.folder / file).open("wb") as page:
            stream.dump(page, encoding="utf-8")
        self.pages += 1

    def write_table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write plots/<name>.csv, for `dvc plots`."""
        (self.folder / "plots").mkdir(exist_ok=True)
        with (self.folder / "plots" / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            write_csv(file, [*rows[0]] if rows else [], (row.values() for row in rows))

    def image(self, data: bytes, of: str) -> ReportImage:
        """Write an image; `of` names it in errors.

        Raises EarshotError for bytes that are neither JPEG nor PNG.
        """
        try:
            with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as image:
                return ReportImage(self._write(data, FORMATS[str(image.format)]), *image.size)
        except UnidentifiedImageError:
            raise EarshotError(f"{of}: {len(data)} bytes are not a JPEG or PNG; run the stage explain again") from None

    def sound(self, data: bytes) -> str:
        """Write a sound (MP3); its file, or empty without data."""
        return self._write(data, "mp3") if data else ""

    def video(self, data: bytes) -> str:
        """Write a video (MP4); its file."""
        return self._write(data, "mp4")

    def chart(
        self, name: str, draw: Callable[[], Figure], caption: str, alt: str, numbers: Numbers | None = None
    ) -> Chart:
        """Draw a chart and write it as SVG, for a light and a dark page, and as PNG."""
        width, height = save_chart(draw, self.folder / "figures" / name)
        self.charts += 1
        return Chart(name, width, height, caption, alt, numbers)

    def paper_chart(self, name: str, draw: Callable[[], Figure], caption: str, alt: str, made_by: str) -> Chart:
        """Draw a chart at column width as PDF, SVG and PNG, with a text file of its caption and what made it."""
        width, height = save_paper_chart(draw, self.folder / "figures" / name)
        self.write_text(f"figures/{name}.txt", f"{caption}\n{made_by}\n")
        self.charts += 1
        return Chart(name, width, height, caption, alt, made_by=made_by)

    def write_text(self, file: str, text: str) -> str:
        """Write a text file of the report; its name."""
        (self.folder / file).parent.mkdir(exist_ok=True)
        (self.folder / file).write_text(text, encoding="utf-8")
        return file

    def _write(self, data: bytes, kind: str) -> str:
        name = f"media/{hashlib.sha256(data).hexdigest()[:DIGITS]}.{kind}"
        if name not in self._written:
            (self.folder / name).write_bytes(data)
            self._written.add(name)
        return name


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[[Any], str]] = {
        "score": score,
        "share": share,
        "signed": signed,
        "count": count,
        "display": display,
        "brief": brief,
        "initial": initial,
    }
    environment.filters |= filters
    environment.filters["term"] = term
    return environment


@pass_context
def term(context: Context, text: str) -> Markup:
    """A word, as a link to its explanation if the glossary has it."""
    entry = glossary.explained(text)
    if not entry:
        return escape(text)
    word, explanation = entry
    link = '<a class="term" href="{}#{}" data-explanation="{}">{}</a>'
    return Markup(link).format(f"{context['up']}{glossary.FILE}", glossary.anchor(word), explanation, text)


def score(value: float | None) -> str:
    """A score with three digits; a count unchanged."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference with its sign and two digits."""
    return f"{value:+.2f}".replace("-", "−")


def share(value: float | None) -> str:
    """A share of 1 in percent, without meaningless digits."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%" if 0 < value < 0.1 else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def brief(text: str) -> str:
    """Untrusted text, truncated to the length of a caption."""
    return text if len(text) <= CAPTION_LENGTH else f"{text[: CAPTION_LENGTH - 1]}…"


def initial(text: str) -> str:
    """A heading with a capital."""
    return text[:1].upper() + text[1:]


def count(value: int) -> str:
    """A number with thousands separators."""
    return f"{value:,}"


def display(value: Any) -> str:
    """Any value of a table: integers as counts, floats with four digits, missing values as a dash."""
    if value is None or value == "" or value != value:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
