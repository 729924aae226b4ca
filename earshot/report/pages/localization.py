"""Localization: the map of where a sound comes from, over images with boxes and over whole clips."""

from collections.abc import Mapping
from typing import Any

from earshot.report.columns import Column, Page, skipped_column
from earshot.report.site import Site, score
from earshot.report.sources import Source


def column(site: Site, source: Source, prefix: str) -> Column:
    """The images and the videos of a run, under the map."""
    exhibit = source.exhibit("localization")
    if exhibit.skipped:
        return skipped_column(source.name, exhibit)
    images = [_image(site, row) for row in exhibit.rows("localized")]
    videos = [_video(site, row) for row in exhibit.rows("videos_with_sound")]
    view = {"images": images, "videos": videos}
    return Column(source.name, _lead(images, source), "", exhibit.metadata, exhibit.metrics, view)


def _image(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {name: site.image(row[name], f"localized.parquet, {row['name']}") for name in ("image", "heat")}
    values = {key: row[key] for key in ("name", "class", "hit", "control_hit")}
    return values | media | {"sound": site.sound(row["sound"])}


def _video(site: Site, row: Mapping[str, Any]) -> dict[str, Any]:
    media = {"poster": site.image(row["poster"], "videos_with_sound.parquet"), "video": site.video(row["video"])}
    return {key: row[key] for key in ("clip_id", "annotations", "seconds")} | media


def _lead(images: list[dict[str, Any]], source: Source) -> str:
    """The hits among the displayed images, and the benchmark's scores on all images."""
    total, hits = len(images), sum(bool(image["hit"]) for image in images)
    control = sum(bool(image["control_hit"]) for image in images)
    text = f"The peak of the map is on the source of the sound in {hits} of the {total} images below; "
    text += f"with a random network in {control}."
    metrics = source.metrics("localization")
    if {"peak", "center_peak"} <= metrics.keys():
        controls = {"wrong sound": "wrong_sound_peak", "center of the image": "center_peak"}
        beside = ", ".join(f"{name} {score(metrics[key])}" for name, key in controls.items() if key in metrics)
        text += f" Over all images of the benchmark, the share is {score(metrics['peak'])} ({beside})."
    return text


PAGE = Page(
    "Where in an image a sound comes from, by the map of the network that predicts whether an image and audio match. "
    "The network was trained without boxes; they are drawn for comparison. Wrong sound is not drawn here.",
    column,
    "localization.html",
    shows="maps over some images and clips",
)
