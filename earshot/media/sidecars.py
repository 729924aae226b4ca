"""Sidecars, files with the name of a clip: a .json with its metadata; in tars also a .txt caption or a .cls class.

The stage download writes `group` and `annotations`. video2dataset writes the address of the video as `url`, a caption,
columns of the user's, and the status of the download. It numbers its clips, so the group comes from the address.
"""

import math
from collections.abc import Mapping
from typing import Any

from earshot.core.json_files import parse_json
from earshot.core.untrusted import check_text
from earshot.corpus.ledger import DETAIL_LENGTH
from earshot.corpus.manifest import address_name
from earshot.media.clips import ClipAnnotations, one_line

MAX_SIDECAR_BYTES = 1 << 20  # bytes; YouTube's metadata, which video2dataset keeps, is some 100 kB
ADDRESSES = ("url", "webpage_url", "original_url")
VIDEOS = ("videoID", "video_id", "youtube_id", "ytid", "YTID")
WORDS = ("annotation", "labels", "label", "classes", "class")  # whose texts semicolons separate, as in tables
CAPTIONS = ("caption", "text")
FAILURES = {"failed_to_download": "not-found", "failed_to_subsample": "unreadable"}  # video2dataset's


class OtherFormat(ValueError):
    """A .json that is not a mapping, so that it is not a sidecar of a known format."""


def read_json(data: bytes) -> dict[str, Any]:
    """The mapping in a sidecar.

    Raises OtherFormat for other valid JSON, and ValueError for anything else.
    """
    values = parse_json(data)
    if not isinstance(values, dict):
        raise OtherFormat(f"a {type(values).__name__}, expected a mapping")
    return values


def annotations_of(values: Mapping[str, Any], beside: str = "") -> ClipAnnotations:
    """Group and annotations from a sidecar; without an annotation in it, from `beside`, a caption or class.

    Semicolons separate the annotations in a text.

    Raises ValueError if the annotations are neither a list nor a text, the group is neither a text nor a number, or a
    text is longer than `check_text` allows.
    """
    given, group = values.get("annotations") or [], values.get("group")
    if not isinstance(given, list | str):
        raise ValueError(f"annotations are a {type(given).__name__}, expected a list or a text")
    if not isinstance(group, str | int | float | None) or (isinstance(group, float) and not math.isfinite(group)):
        raise ValueError(f"group is {str(group)[:60]} ({type(group).__name__}), expected a text or a number")
    words = given if isinstance(given, list) else [part for part in given.split(";") if part.strip()]
    annotations = words or _words(values) or [beside]
    group = one_line(group) or _video(values)
    return ClipAnnotations(check_text(group), tuple(filter(None, map(_word, annotations))))


def _word(value: object) -> str:
    return check_text(one_line(value))


def failure(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and detail where video2dataset reports that it has no video of a clip."""
    status = str(values.get("status"))
    if status not in FAILURES:
        return None
    return FAILURES[status], f"video2dataset: {status}: {one_line(values.get('error_message'))[:DETAIL_LENGTH]}"


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
