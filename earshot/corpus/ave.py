"""AVE, the list of audio-visual events: `class&video&quality&start&end` after a header (Tian 2018).

The list says which part of a clip is heard and not where in the video its ten seconds begin. AVE's videos are
AudioSet's, so that is looked up there. A clip whose video is in none of the lists at hand can only be had from the
archive of AVE's authors, as the file `<video>.mp4` beside the manifest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.corpus.manifest import YOUTUBE_ID, ManifestRow, read_manifest, youtube_address

SECONDS = 10.0  # that a clip lasts
FIELDS = 5


@dataclass(frozen=True)
class Event:
    """A video of AVE and its classes, with the line on which it is named first."""

    line: int
    video: str
    classes: tuple[str, ...]


def read_events(file: Path) -> list[Event]:
    """The videos of AVE's list (4,097 of them), one with several classes once.

    Raises EarshotError for a file that cannot be read and for a line that is no event.
    """
    events: dict[str, Event] = {}
    for number, line in enumerate(_lines(file), 1):
        fields = line.split("&")
        if not line or (number == 1 and fields[0] == "Category"):
            continue
        if len(fields) != FIELDS or not YOUTUBE_ID.fullmatch(fields[1]):
            raise EarshotError(f"{file}, line {number}: {line!r:.80}, wanted class&video&quality&start&end")
        name, video = fields[:2]
        event = events.get(video, Event(number, video, ()))
        classes = event.classes if name in event.classes else (*event.classes, name)
        events[video] = Event(event.line, video, classes)
    return list(events.values())


def starts(events: Sequence[Event], lists: Sequence[Path]) -> dict[str, float]:
    """Where the clips of these events begin, in seconds of their videos, as far as AudioSet's lists know."""
    wanted = {event.video for event in events}
    return {row.group: row.start for file in lists for row in read_manifest(file) if row.group in wanted}


def read_ave(file: Path, lists: Sequence[Path]) -> Iterator[tuple[int, ManifestRow]]:
    """The clips of AVE's list as rows of a manifest, each with its line; see above what `lists` of AudioSet are for."""
    events = read_events(file)
    begins = starts(events, lists)
    for event in events:
        is_local = event.video not in begins
        source = f"{event.video}.mp4" if is_local else youtube_address(event.video)
        start = begins.get(event.video, 0.0)
        name = f"{event.video}_{round(start * 1000)}"
        yield event.line, ManifestRow(name, source, start, start + SECONDS, event.video, event.classes, is_local)


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); add the published list") from None
