"""Localisation: the map of where a sound comes from, over pictures with boxes and over whole clips."""

from collections.abc import Mapping
from typing import Any

from earshot.report.columns import Column, Page, nothing_to_display
from earshot.report.site import Site, share
from earshot.report.sources import Source


def column(site: Site, source: Source, prefix: str) -> Column:
    """The pictures and the videos of a run, under the map."""
    exhibit = source.exhibit("localization")
    if exhibit.nothing:
        return nothing_to_display(source.name, exhibit)
    images = [_image(site, row) for row in exhibit.rows("localized")]
    videos = [_video(site, row) for row in exhibit.rows("sounding_videos")]
    view = {"images": images, "videos": videos}
    return Column(source.name, _lead(images, source), "", exhibit.metadata, exhibit.metrics, view)


def _image(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {name: site.image(row[name], f"localised.parquet, {row['name']}") for name in ("shown", "heat")}
    told = {key: row[key] for key in ("name", "class", "hit", "control_hit")}
    return told | media | {"sound": site.sound(row["sound"])}


def _video(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {"poster": site.image(row["poster"], "sounding_videos.parquet"), "video": site.video(row["video"])}
    return {key: row[key] for key in ("clip_id", "annotations", "seconds")} | media


def _lead(images: list[dict[str, Any]], source: Source) -> str:
    """The hits among the pictures shown, and what the benchmark measured on all."""
    shown, hits = len(images), sum(bool(image["hit"]) for image in images)
    control = sum(bool(image["control_hit"]) for image in images)
    told = f"In {hits} of the {shown} pictures shown, the highest point of the map lies on what is heard; "
    told += f"a random network's in {control}."
    measured = source.metrics("localization")
    if {"peak", "center_peak"} <= measured.keys():
        told += f" Over all pictures of the benchmark: {share(measured['peak'])}, "
        told += f"where the middle of the picture has {share(measured['center_peak'])}."
    return told


PAGE = Page(
    "Where in a picture a sound comes from, by the map of the network that tells which pictures and sounds belong "
    "together. It never saw a box; boxes are drawn to compare.",
    column,
    "localization.html",
)
