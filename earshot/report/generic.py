"""The page of an exhibit that has none of its own: its tables as they are, with their pictures, sounds and videos."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from earshot.report.columns import Column, Page, nothing_to_display
from earshot.report.site import Site
from earshot.report.sources import Source

MOST_ROWS = 100  # that are shown of a table
IMAGES, VIDEO = (b"\xff\xd8", b"\x89PNG"), b"ftyp"  # how files begin; of a video, after its length


def page(name: str) -> Page:
    """The page of the exhibit `name`."""

    def column(site: Site, source: Source, prefix: str) -> Column:
        exhibit = source.exhibit(name)
        if exhibit.nothing:
            return nothing_to_display(source.name, exhibit)
        files = sorted(exhibit.folder.glob("*.parquet"))
        tables = {
            file.stem: [_shown(site, row, file.name) for row in islice(exhibit.rows(file.stem), MOST_ROWS)]
            for file in files
        }
        told = ", ".join(f"{title.replace('_', ' ')} ({len(rows)})" for title, rows in tables.items())
        view = {"tables": tables, "most": MOST_ROWS, "folder": f"data/explain/{name}"}
        return Column(source.name, f"Tables: {told or 'none'}.", "", exhibit.metadata, exhibit.metrics, view)

    return Page("What the exhibit wrote, row by row.", column, "generic.html")


def _shown(site: Site, row: Mapping[str, Any], of: str) -> dict[str, Any]:
    """A row with its media written as files, and its other values, by kind and column."""
    shown: dict[str, Any] = {"images": {}, "sounds": {}, "videos": {}, "values": {}}
    for name, value in row.items():
        if not isinstance(value, bytes):
            shown["values"][name] = ", ".join(map(str, value[:20])) if isinstance(value, list) else value
        elif value.startswith(IMAGES):
            shown["images"][name] = site.image(value, of)
        elif value[4:8] == VIDEO:
            shown["videos"][name] = site.video(value)
        elif value:
            shown["sounds"][name] = site.sound(value)
    return shown
