"""What lies beside a clip under its name: a .json with what is known of it; in tars also a .txt or .cls with a word.

Stage download writes `group` and `annotations`. video2dataset writes the address of the video as `url`, a caption, its
own columns, and what became of a download; its clips are numbered, and clips of one video must not be told apart by
their numbers, so the group is the video behind the address.
"""

import json
from collections.abc import Mapping
from typing import Any

from earshot.corpus.manifest import address_name
from earshot.media.clips import Annotations, one_line

MAX_SIDECAR_BYTES = 1 << 20  # bytes; YouTube's own facts, which video2dataset keeps, are some 100 kB
ADDRESSES = ("url", "webpage_url", "original_url")
VIDEOS = ("videoID", "video_id", "youtube_id", "ytid", "YTID")
WORDS = ("annotation", "labels", "label", "classes", "class")  # whose texts are separated by semicolons, as in tables
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
        raise ValueError(f"a {type(values).__name__}, wanted a mapping")
    return values


def annotations_of(values: Mapping[str, Any], beside: str = "") -> Annotations:
    """What a sidecar says of its clip; where it has no word for it, `beside` has: a caption or class of its own file.

    Raises ValueError for annotations that are no list.
    """
    given = values.get("annotations") or []
    if not isinstance(given, list):
        raise ValueError(f"annotations are a {type(given).__name__}, wanted a list")
    annotations = given or _words(values) or [beside]
    return Annotations(one_line(values.get("group")) or _video(values), tuple(filter(None, map(one_line, annotations))))


def failure(values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Reason and detail where video2dataset says that it does not have a clip."""
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
    """The name of the video that a clip is of, or nothing: the same whichever of these keys says it."""
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
