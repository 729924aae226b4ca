"""The page of an exhibit without a page of its own: its tables with their images, sounds and videos."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.site import Site
from earshot.report.sources import Source

MOST_ROWS = 100  # displayed per table
IMAGES, VIDEO = (b"\xff\xd8", b"\x89PNG"), b"ftyp"  # signatures of files; that of a video follows its length


def page(name: str) -> Page:
    """The page of the exhibit `name`."""

    def column(site: Site, source: Source, prefix: str) -> Column:
        exhibit = source.exhibit(name)
        if exhibit.skipped:
            return skipped_column(source.name, exhibit)
        files = sorted(exhibit.folder.glob("*.parquet"))
        tables = {
            file.stem: [_display_row(site, row, file.name) for row in islice(exhibit.rows(file.stem), MOST_ROWS)]
            for file in files
        }
        summary = ", ".join(f"{title.replace('_', ' ')} ({len(rows)})" for title, rows in tables.items())
        view = {"tables": tables, "most": MOST_ROWS, "folder": f"data/explain/{name}"}
        return Column(source.name, f"Tables: {summary or 'none'}.", "", exhibit.metadata, exhibit.metrics, view)

    return Page("The tables of the exhibit, row by row.", column, "generic.html")


def _display_row(site: Site, row: Mapping[str, Any], of: str) -> dict[str, Any]:
    """A row by kind and column, with its media written as files."""
    values: dict[str, Any] = {"images": {}, "sounds": {}, "videos": {}, "values": {}}
    for name, value in row.items():
        if not isinstance(value, bytes):
            values["values"][name] = ", ".join(map(str, value[:20])) if isinstance(value, list) else value
        elif value.startswith(IMAGES):
            values["images"][name] = site.image(value, of)
        elif value[4:8] == VIDEO:
            values["videos"][name] = site.video(value)
        elif value:
            values["sounds"][name] = site.sound(value)
    return values
