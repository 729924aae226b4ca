"""AVE, the list of audio-visual events: `class&video&quality&start&end` after a header (Tian 2018).

The list gives the time of the event in a clip, but not where in the video its ten seconds begin. AVE's videos are from
AudioSet, so this module looks the start up in AudioSet's lists. If no list has the video, the clip must come from the
archive of AVE's authors, as the file `<video>.mp4` beside the manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.text import read_lines
from earshot.corpus.manifest import YOUTUBE_ID, ManifestRow, read_manifest, youtube_address

SECONDS = 10.0  # length of a clip
FIELDS = 5


@dataclass(frozen=True)
class Event:
    """A video of AVE, its classes, and the first line that names it."""

    line: int
    video: str
    classes: tuple[str, ...]


def read_events(file: Path) -> list[Event]:
    """The 4,097 videos of AVE's list, each once with all its classes.

    Raises EarshotError if the file cannot be read or a line is not an event.
    """
    events: dict[str, Event] = {}
    for number, line in enumerate(read_lines(file, "save the published list there"), 1):
        fields = line.split("&")
        if not line or (number == 1 and fields[0] == "Category"):
            continue
        if len(fields) != FIELDS or not YOUTUBE_ID.fullmatch(fields[1]):
            raise EarshotError(f"{file}, line {number}: {line!r:.80}, expected class&video&quality&start&end")
        name, video = fields[:2]
        event = events.get(video, Event(number, video, ()))
        classes = event.classes if name in event.classes else (*event.classes, name)
        events[video] = Event(event.line, video, classes)
    return list(events.values())


def starts(events: Sequence[Event], lists: Sequence[Path]) -> dict[str, float]:
    """Where the clips of these events begin in their videos (s), for videos in AudioSet's lists."""
    videos = {event.video for event in events}
    return {row.group: row.start for file in lists for row in read_manifest(file) if row.group in videos}


def read_ave(file: Path, lists: Sequence[Path]) -> Iterator[tuple[int, ManifestRow]]:
    """The clips of AVE's list as manifest rows, each with its line; `lists` of AudioSet give their starts."""
    events = read_events(file)
    known_starts = starts(events, lists)
    for event in events:
        is_local = event.video not in known_starts
        source = f"{event.video}.mp4" if is_local else youtube_address(event.video)
        start = known_starts.get(event.video, 0.0)
        name = f"{event.video}_{round(start * 1000)}"
        yield event.line, ManifestRow(name, source, start, start + SECONDS, event.video, event.classes, is_local)
