"""Tar shards in the WebDataset convention: files that share a name are one sample, whose video is the clip.

Clips are decoded from within the tar. A sample of video2dataset whose download failed has no video and is refused.
"""

import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from earshot.media.clips import MediaFile, clip_name, may_be_clip
from earshot.media.sidecars import MAX_SIDECAR_BYTES, annotations_of, failure, read_json

SOUND = re.compile(r"\.(aac|flac|m4a|mp3|ogg|opus|wav)", re.IGNORECASE)  # beside a video it belongs to the sample
PACKED = re.compile(r"\.(tar\.(bz2|gz|xz|zst)|tgz|tbz2?|txz)$", re.IGNORECASE)
BESIDE = (".txt", ".cls")  # a caption, a class


def clips_in_tar(root: Path, source: str) -> Iterator[MediaFile]:
    """The clips of one tar file below `root`; a truncated shard yields a refusal of its own at the end."""
    path, whole = root / source, False
    if problem := _problem(path):
        yield MediaFile(clip_name(source), "", path, 0, 0, (), source, problem)
        return
    with open(path, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as tar:
                members, whole = _members(tar)
                yield from _Shard(path, source, tar, {member.name: member for member in members}).clips(members)
                file.seek(tar.offset)
                whole = whole and not any(file.read(tarfile.BLOCKSIZE))
        except tarfile.TarError:
            pass
    if not whole:
        refusal = ("unreadable", "the shard is damaged or truncated")
        yield MediaFile(clip_name(source), "", path, 0, 0, (), source, refusal)


def _problem(path: Path) -> tuple[str, str] | None:
    """Reason and detail where a file cannot be opened as a tar."""
    if not path.is_file():  # a link to nowhere, a pipe
        return "unreadable", "the shard is not a file"
    if PACKED.search(path.name):
        return "unsupported", "the shard is compressed; decompress it to .tar"
    return None


def _members(tar: tarfile.TarFile) -> tuple[list[tarfile.TarInfo], bool]:
    """All readable members, and whether the file is complete."""
    members = []
    try:
        for member in tar:
            members.append(member)
    except tarfile.TarError:
        return members, False
    return members, True


@dataclass(frozen=True)
class _Shard:
    """An open tar file; of several members of one name the last counts."""

    path: Path
    source: str
    tar: tarfile.TarFile
    by_name: dict[str, tarfile.TarInfo]

    def clips(self, members: list[tarfile.TarInfo]) -> Iterator[MediaFile]:
        media = [member for member in members if may_be_clip(PurePosixPath(member.name).name) and not member.isdir()]
        videos = {_stem(member.name) for member in media if not _is_sound(member.name)}
        samples = {_stem(member.name) for member in media}
        kept = {id(member) for member in media if not _is_sound(member.name) or _stem(member.name) not in videos}
        for member in members:
            if id(member) in kept:
                yield self._clip(member)
            elif member.name.endswith(".json") and _stem(member.name) not in samples:
                yield from self._failed(member)

    def _clip(self, member: tarfile.TarInfo) -> MediaFile:
        source = f"{self.source}/{member.name}"
        clip = MediaFile(clip_name(member.name), "", self.path, member.offset_data, member.size, source=source)
        if not member.isreg() or member.issparse():
            return replace(clip, size=0, refusal=("unsupported", "not a regular file"))
        sidecar = self.by_name.get(f"{_stem(member.name)}.json")
        try:
            metadata = annotations_of(read_json(self._read(sidecar)) if sidecar else {}, self._beside(member.name))
        except (ValueError, tarfile.TarError) as error:
            return replace(clip, refusal=("unreadable", f"its .json: {error}"))
        return replace(clip, group=metadata.group, annotations=metadata.annotations)

    def _failed(self, member: tarfile.TarInfo) -> Iterator[MediaFile]:
        """The refusal that a sidecar without a video records, if any."""
        try:
            refusal = failure(read_json(self._read(member)))
        except (ValueError, tarfile.TarError):
            return
        if refusal:
            source = f"{self.source}/{member.name}"
            yield MediaFile(clip_name(member.name), "", self.path, 0, 0, source=source, refusal=refusal)

    def _beside(self, name: str) -> str:
        """The caption or class of a sample from a file of its own; an unreadable one is ignored."""
        for member in filter(None, (self.by_name.get(_stem(name) + suffix) for suffix in BESIDE)):
            try:
                return self._read(member).decode()
            except (ValueError, tarfile.TarError):
                continue
        return ""

    def _read(self, member: tarfile.TarInfo) -> bytes:
        if not member.isreg() or member.size > MAX_SIDECAR_BYTES:
            raise ValueError(f"not a file of at most {MAX_SIDECAR_BYTES} bytes")
        content = self.tar.extractfile(member)
        if content is None:
            raise ValueError("not a file")
        return content.read()


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _is_sound(name: str) -> bool:
    return SOUND.fullmatch(PurePosixPath(name).suffix) is not None
