"""Tar shards in the WebDataset convention: files that share a name are one sample, whose video is the clip.

The name ends at the first dot: `a0.video.mp4` and `a0.meta.json` are one sample. Where several videos have this name, a
.json whose name is longer belongs to the video that shares all of it: `a.1.json` to `a.1.mp4`, not to `a.2.mp4`.
Clips are decoded from within the tar. A sample of video2dataset whose download failed has no video and is refused.
"""

import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from earshot.core.files import real_path
from earshot.core.untrusted import MAX_NAME_LENGTH, open_without_links
from earshot.media.clips import LONE_SIDECAR, MediaFile, Skipped, clip_name, ignored_kind, may_be_clip
from earshot.media.sidecars import MAX_SIDECAR_BYTES, OtherFormat, annotations_of, failure, read_json

SOUND = re.compile(r"\.(aac|flac|m4a|mp3|ogg|opus|wav)", re.IGNORECASE)  # beside a video it belongs to the sample
BESIDE = (".txt", ".cls")  # a caption, a class
BYTES_AT_ONCE = 1 << 20  # a multiple of the size of a block
MAX_READ = MAX_SIDECAR_BYTES  # bytes that a header or a sidecar may have
MAX_EMPTY_READS = 8


def clips_in_tar(path: Path, source: str, skipped: Skipped | None = None) -> Iterator[MediaFile]:
    """The clips of one tar file, whose name in the corpus is `source`, and of the tars appended to it.

    A truncated shard yields a refusal of its own at the end. `skipped` counts the files that are no clips.
    """
    path, whole = real_path(path), True
    if not path.is_file():  # a link to nowhere, a pipe
        yield MediaFile(clip_name(source), "", path, 0, 0, (), source, ("unreadable", "the shard is not a file"))
        return
    with open_without_links(path) as opened:
        file = _Bounded(opened)
        begin: int | None = 0
        while whole and begin is not None:
            file.seek(begin)
            try:
                with tarfile.open(fileobj=cast(BinaryIO, file), mode="r:", errorlevel=0) as tar:
                    members, whole = _members(tar)
                    yield from _Shard(path, source, tar, members, Skipped() if skipped is None else skipped).clips()
                    file.seek(tar.offset)
                    whole = whole and not any(file.read(tarfile.BLOCKSIZE))
            except tarfile.TarError:
                whole = False
            begin = _next_block(file)
    if not whole:
        refusal = ("unreadable", "the shard is damaged or truncated")
        yield MediaFile(clip_name(source), "", path, 0, 0, (), source, refusal)


def _next_block(file: "_Bounded") -> int | None:
    """Where the next block that is not empty begins, in bytes from the beginning of the file; None if there is none."""
    begin = file.tell()
    while data := file.read(BYTES_AT_ONCE):
        if left := data.lstrip(b"\0"):
            return begin + (len(data) - len(left)) // tarfile.BLOCKSIZE * tarfile.BLOCKSIZE
        begin += len(data)
    return None


def _members(tar: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], bool]:
    """All readable members, and whether the file is complete."""
    members: list[tarfile.TarInfo] = []
    end = -1
    try:
        for member in tar:
            if tar.offset <= end:  # a negative size leads back, without an end
                return members, False
            end = tar.offset
            members.append(member)
    except MemoryError:
        raise
    except Exception:  # tarfile lets ValueError, OverflowError and others of a hostile header through
        return members, False
    return members, True


class _Bounded:
    """A file from which no header can read much at once, and nothing reads on and on beyond the end."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell = file, file.tell
        self._empty = 0  # reads beyond the end in succession

    def read(self, size: int) -> bytes:
        """At most `size` bytes; raises tarfile.ReadError where a tar must not ask for them."""
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header of {size:,} bytes, expected at most {MAX_READ:,}")
        data = self.file.read(size)
        self._empty = self._empty + 1 if size and not data else 0
        if self._empty > MAX_EMPTY_READS:
            raise tarfile.ReadError("the end of the file")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of a file; raises tarfile.ReadError for a place that cannot be."""
        try:
            return self.file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            raise tarfile.ReadError(f"an offset of {offset:,}") from None


class _Shard:
    """An open tar file; of several members of one name the last counts."""

    def __init__(
        self, path: Path, source: str, tar: tarfile.TarFile, members: list[tarfile.TarInfo], skipped: Skipped
    ) -> None:
        self.path, self.source, self.tar, self.members, self.skipped = path, source, tar, members, skipped
        self.by_name = {_plain(member.name): member for member in members}
        media = [member for member in members if may_be_clip(PurePosixPath(member.name).name) and not member.isdir()]
        videos = [member for member in media if not _is_sound(member.name)]
        video_keys = {_sample(member.name) for member in videos}
        self.clip_members = videos + [member for member in media if _sample(member.name) not in video_keys]
        self.stems: dict[str, set[str]] = {}  # of the clips, by sample
        for member in self.clip_members:
            self.stems.setdefault(_sample(member.name), set()).add(_stem(member.name))
        self.clip_stems = set().union(*self.stems.values())
        self.sidecars: dict[str, list[tarfile.TarInfo]] = {}  # by stem of the clip
        self.lone: list[tarfile.TarInfo] = []
        self._sort_sidecars()

    def _sort_sidecars(self) -> None:
        """Find the clips of each .json: the clip of its whole name, or those of its sample.

        A .json with more than the name of the sample must belong to one clip only: to the clip of its whole name, or to
        the only clip of the sample, unless this one has a longer name too and a .json of its own.
        """
        sidecars = [member for member in self.by_name.values() if _is_sidecar(member)]
        own = {_stem(member.name) for member in sidecars}
        for member in sidecars:
            stem, sample = _stem(member.name), _sample(member.name)
            clips = self.stems.get(sample, set())
            if stem != sample:
                only = len(clips) == 1 and (sample in clips or not own & clips) and not self._failure(member)
                clips = {stem} & clips or (clips if only else set())
            for clip in clips:
                self.sidecars.setdefault(clip, []).append(member)
            self.lone += [] if clips else [member]
        for clip, members in self.sidecars.items():
            members.sort(key=partial(_closeness, clip))

    def clips(self) -> Iterator[MediaFile]:
        clips, lone = set(map(id, self.clip_members)), set(map(id, self.lone))
        used = {id(sidecar) for sidecars in self.sidecars.values() for sidecar in sidecars}
        for member in self.members:
            if id(member) in clips:
                yield self._clip(member)
            elif id(member) in lone:
                yield from self._lone(member)
            elif not (member.isdir() or id(member) in used or self._is_beside(member.name)):
                self.skipped.add(ignored_kind(member.name), f"{self.source}/{member.name[:MAX_NAME_LENGTH]}")

    def _clip(self, member: tarfile.TarInfo) -> MediaFile:
        source, data = f"{self.source}/{member.name}", self._target(member)
        clip = MediaFile(clip_name(member.name), "", self.path, member.offset_data, 0, source=source)
        if len(member.name) > MAX_NAME_LENGTH:
            named, length = member.name[:MAX_NAME_LENGTH], len(member.name)
            detail = f"a name of {length:,} characters, expected at most {MAX_NAME_LENGTH:,}"
            clip = replace(clip, clip_id=clip_name(named), source=f"{self.source}/{named}")
            return replace(clip, refusal=("unsupported", detail))
        if data is None:
            linked = member.linkname[:MAX_NAME_LENGTH]
            return replace(clip, refusal=("unsupported", f"a link to {linked}, which is not in the tar"))
        if not data.isreg() or data.issparse():
            return replace(clip, refusal=("unsupported", "not a regular file"))
        clip = replace(clip, offset=data.offset_data, size=data.size)
        try:
            metadata = annotations_of(self._metadata(member.name), self._beside(member.name))
        except (ValueError, tarfile.TarError) as error:
            return replace(clip, size=data.size, refusal=("unreadable", f"its .json: {error}"))
        return replace(clip, group=metadata.group, annotations=metadata.annotations)

    def _metadata(self, name: str) -> dict[str, Any]:
        """What the .json files of a clip say; the last prevails, which is its own.

        Raises ValueError if one is damaged. Of the others of its sample, those of an unknown format are ignored.
        """
        values: dict[str, Any] = {}
        for sidecar in self.sidecars.get(_stem(name), []):
            try:
                values |= read_json(self._read(sidecar))
            except OtherFormat:
                if _stem(sidecar.name) == _stem(name):
                    raise
        return values

    def _target(self, member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        """The member whose data a member has: itself, or the one that a link leads to; None if it is not in the tar."""
        passed = set()
        while member.islnk() or member.issym():
            passed.add(_plain(member.name))
            folder = posixpath.dirname(member.name) if member.issym() else ""
            target = self.by_name.get(_plain(posixpath.join(folder, member.linkname)))
            if target is None or _plain(target.name) in passed:
                return None
            member = target
        return member

    def _failure(self, member: tarfile.TarInfo) -> tuple[str, str] | None:
        """The refusal that a .json records, if any."""
        try:
            return failure(read_json(self._read(member)))
        except (ValueError, tarfile.TarError):
            return None

    def _lone(self, member: tarfile.TarInfo) -> Iterator[MediaFile]:
        """The refusal that a .json without a clip records; others are counted."""
        source = f"{self.source}/{member.name[:MAX_NAME_LENGTH]}"
        if refusal := self._failure(member):
            yield MediaFile(
                clip_name(member.name[:MAX_NAME_LENGTH]), "", self.path, 0, 0, source=source, refusal=refusal
            )
        else:
            self.skipped.add(LONE_SIDECAR, source)

    def _beside(self, name: str) -> str:
        """The caption or class of a sample from a file of its own; an unreadable one is ignored."""
        names = [stem + suffix for stem in (_stem(name), _sample(name)) for suffix in BESIDE]
        for member in filter(None, map(self.by_name.get, names)):
            try:
                return self._read(member).decode()
            except (ValueError, tarfile.TarError):
                continue
        return ""

    def _is_beside(self, name: str) -> bool:
        """Whether a member holds the caption or class of a clip."""
        is_text = PurePosixPath(name).suffix in BESIDE
        return is_text and any(key in self.stems or key in self.clip_stems for key in (_sample(name), _stem(name)))

    def _read(self, member: tarfile.TarInfo) -> bytes:
        data = self._target(member)
        if data is None or not data.isreg() or data.size > MAX_SIDECAR_BYTES:
            raise ValueError(f"not a file of at most {MAX_SIDECAR_BYTES} bytes")
        content = self.tar.extractfile(data)
        if content is None:
            raise ValueError("not a file")
        return content.read()


def _plain(name: str) -> str:
    """A member's name without `./` before it."""
    return posixpath.normpath(name) if name else ""


def _stem(name: str) -> str:
    """The name without its last suffix."""
    return posixpath.splitext(_plain(name))[0]


def _sample(name: str) -> str:
    """The name of a member's sample: its folder, and its base name up to the first dot."""
    folder, base = posixpath.split(_plain(name))
    return posixpath.join(folder, base[0] + base[1:].partition(".")[0]) if base else ""


def _closeness(clip: str, sidecar: tarfile.TarInfo) -> tuple[bool, bool]:
    """The rank of a .json among those of a clip, by its stem; the clip's own is the last."""
    stem = _stem(sidecar.name)
    return stem == clip, stem == _sample(sidecar.name)


def _is_sidecar(member: tarfile.TarInfo) -> bool:
    return (
        member.name.lower().endswith(".json")
        and not member.isdir()
        and not PurePosixPath(member.name).name.startswith(".")
    )


def _is_sound(name: str) -> bool:
    return SOUND.fullmatch(PurePosixPath(name).suffix) is not None
