"""Sidecars, files with the name of a clip: a .json with its metadata; in tars also a .txt caption or a .cls class.

The stage download writes `group` and `annotations`. video2dataset writes the address of the video as `url`, a caption,
columns of the user's, and the status of the download. It numbers its clips, so the group comes from the address.
"""

import json
from collections.abc import Mapping
from typing import Any

from earshot.corpus.manifest import address_name
from earshot.media.clips import ClipAnnotations, one_line

MAX_SIDECAR_BYTES = 1 << 20  # bytes; YouTube's metadata, which video2dataset keeps, is some 100 kB
ADDRESSES = ("url", "webpage_url", "original_url")
VIDEOS = ("videoID", "video_id", "youtube_id", "ytid", "YTID")
WORDS = ("annotation", "labels", "label", "classes", "class")  # whose texts semicolons separate, as in tables
CAPTIONS = ("caption", "text")
FAILURES = {"failed_to_download": "not-found", "failed_to_subsample": "unreadable"}  # video2dataset's


def read_json(data: bytes) -> dict[str, Any]:
    """The mapping in a sidecar.

    Raises ValueError for anything else.
    """
    try:
        values = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(values, dict):
        raise ValueError(f"a {type(values).__name__}, expected a mapping")
    return values


def annotations_of(values: Mapping[str, Any], beside: str = "") -> ClipAnnotations:
    """Group and annotations from a sidecar; without an annotation in it, from `beside`, a caption or class.

    Raises ValueError if the annotations are not a list.
    """
    given = values.get("annotations") or []
    if not isinstance(given, list):
        raise ValueError(f"annotations are a {type(given).__name__}, expected a list")
    annotations = given or _words(values) or [beside]
    group = one_line(values.get("group")) or _video(values)
    return ClipAnnotations(group, tuple(filter(None, map(one_line, annotations))))


def failure(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and detail where video2dataset reports that it has no video of a clip."""
    status = str(values.get("status"))
    if status not in FAILURES:
        return None
    return FAILURES[status], f"video2dataset: {status}: {one_line(values.get('error_message'))}"


def _words(values: Mapping[str, Any]) -> list[Any]:
    for key in WORDS + CAPTIONS:
        value = values.get(key)
        if isinstance(value, list):
            return [word for word in value if isinstance(word, str | int)]
        if isinstance(value, str) and key in WORDS:
            return [part for part in value.split(";") if part.strip()]
        if isinstance(value, str | int) and value != "":
            return [value]
    return []


def _video(values: Mapping[str, Any]) -> str:
    """The name of a clip's source video, the same from any of these keys; empty if there is none."""
    about = values.get("yt_meta_dict")
    info = about.get("info") if isinstance(about, dict) else None
    for place in (values, info if isinstance(info, dict) else {}):
        for key in ADDRESSES:
            if isinstance(address := place.get(key), str) and address.strip():
                return _named(address.strip())
        if isinstance(video := next(filter(None, map(place.get, VIDEOS)), None), str):
            return one_line(video)
    return ""


def _named(address: str) -> str:
    try:
        return address_name(address)
    except ValueError:
        return one_line(address)
