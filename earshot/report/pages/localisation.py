"""Localisation: the map of where a sound comes from, over pictures with boxes and over whole clips."""

from collections.abc import Mapping
from typing import Any

from earshot.report.columns import Column, Page, nothing_to_show
from earshot.report.site import Site, share
from earshot.report.sources import Source


def column(site: Site, source: Source, prefix: str) -> Column:
    """The pictures and the videos of a run, under the map."""
    exhibit = source.exhibit("localisation")
    if exhibit.nothing:
        return nothing_to_show(source.name, exhibit)
    pictures = [_picture(site, row) for row in exhibit.rows("localised")]
    videos = [_video(site, row) for row in exhibit.rows("sounding_videos")]
    view = {"pictures": pictures, "videos": videos}
    return Column(source.name, _lead(pictures, source), "", exhibit.facts, exhibit.metrics, view)


def _picture(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {name: site.picture(row[name], f"localised.parquet, {row['name']}") for name in ("shown", "heat")}
    told = {key: row[key] for key in ("name", "class", "hit", "control_hit")}
    return told | media | {"sound": site.sound(row["sound"])}


def _video(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {"poster": site.picture(row["poster"], "sounding_videos.parquet"), "video": site.video(row["video"])}
    return {key: row[key] for key in ("clip_id", "annotations", "seconds")} | media


def _lead(pictures: list[dict[str, Any]], source: Source) -> str:
    """The hits among the pictures shown, and what the benchmark measured on all."""
    shown, hits = len(pictures), sum(bool(picture["hit"]) for picture in pictures)
    control = sum(bool(picture["control_hit"]) for picture in pictures)
    told = f"In {hits} of the {shown} pictures shown, the highest point of the map lies on what is heard; "
    told += f"a random network's in {control}."
    measured = source.metrics("localisation")
    if {"peak", "centre_peak"} <= measured.keys():
        told += f" Over all pictures of the benchmark: {share(measured['peak'])}, "
        told += f"where the middle of the picture has {share(measured['centre_peak'])}."
    return told


PAGE = Page(
    "Where in a picture a sound comes from, by the map of the network that tells which pictures and sounds belong "
    "together. It never saw a box; boxes are drawn to compare.",
    column,
    "localisation.html",
)
