"""The page of the results of a search: the query, and each hit with its image and sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from earshot.explanation.media import jpeg_of, mp3_of
from earshot.report.site import ReportImage, Site

PAGE = "index.html"


@dataclass(frozen=True)
class SearchResult:
    """A query or a hit on the page.

    Args:
        name: of the file.
        words: further words, such as the time and the cosine.
        image: uint8 (height, width, 3), or None.
        sound: float32 (samples,); empty for none.
        rate: of the sound, Hz.
    """

    name: str
    words: str
    image: np.ndarray | None
    sound: np.ndarray
    rate: int


@dataclass(frozen=True)
class _Card:
    name: str
    words: str
    image: ReportImage | None
    sound: str


def write_search_page(folder: Path, query: SearchResult, hits: Sequence[SearchResult], about: str) -> str:
    """Write the folder of the page, and return what it holds; it is emptied first."""
    site = Site(folder, "search", {PAGE: "Search"})
    cards = [_card(site, each) for each in (query, *hits)]
    site.write_page(PAGE, "search.html", title="Search", about=about, query=cards[0], hits=cards[1:])
    return str(site)


def _card(site: Site, result: SearchResult) -> _Card:
    image = None
    if result.image is not None:
        image = site.image(jpeg_of(Image.fromarray(result.image)), result.name)
    sound = site.sound(mp3_of(result.sound, result.rate)) if len(result.sound) else ""
    return _Card(result.name, result.words, image, sound)
