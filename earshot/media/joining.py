"""Lists of clips joined to files that came from elsewhere, such as the tars of a mirror.

A file belongs to a row by its name, in whatever folder or tar it is: `YTID_000030.mp4` as VGGSound has it, in seconds;
`YTID_30000`, `YTID_30000_40000` (milliseconds), `YTID_30.000_40.000`, `YTID_30_40`, `YTID_000030_000040` (seconds), all
of these with a Y before them, or `YTID` alone where the list has one clip of this video. The rows of paths too.
The rows give groups and annotations. Rows without a file are refusals, so that every clip of the list has an outcome.
"""

import json
import re
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from earshot.core.errors import EarshotError
from earshot.core.messages import printable
from earshot.corpus.manifest import ManifestRow, numbered_rows, path_name
from earshot.corpus.split import split_of
from earshot.media.clips import MediaFile

VIDEO_AND_START = re.compile(r"([\w-]{11})(?:_(\d+(?:\.\d+)?)(?:_\d+(?:\.\d+)?)?)?", re.ASCII)
LISTS = (".csv", ".tsv", ".parquet")
NAMED = 3  # names in a message
BY_RANK = ("", "train", "val", "test")  # the last of those that a group has is the group's
TABLES = """
create table rows (clip_id text primary key, video text, group_name text, annotations text, split integer,
                   file integer, line integer, source text, seen integer default 0);
create index videos on rows (video);
create index groups on rows (group_name);
"""


class JoinedLists:
    """The rows of a list, or of all lists in a folder, in a temporary file of SQLite's.

    Of one clip, the annotations of several rows are joined; those of a later list replace those of an earlier one.

    Args:
        path: of the list or of the folder.
        splits: `group`: the hash of the group decides the split, `manifest`: the list does. A group that has clips in
            several splits is in the last of them: train, val, test. Where no row is in val, the tenth of the training
            groups that the hash selects is.

    Raises EarshotError for a list that cannot be read, a folder without lists, and lists without the splits.
    """

    def __init__(self, path: Path, splits: Literal["group", "manifest"]) -> None:
        self.path, self._index = path, sqlite3.connect("")
        self._index.executescript(TABLES)
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in LISTS)
        if not files:
            raise EarshotError(f"{path}: holds no list; name a csv or Parquet file, or a folder of them")
        self._files = files
        for number, file in enumerate(files):
            for line, row in numbered_rows(file):
                self._add(number, line, row)
        known = self._ranks()
        if splits == "manifest" and not known:
            raise EarshotError(f"{path}: names no split of its clips; set corpus.split=group")
        self._has_val = 2 in known
        self._published = splits == "manifest"
        self._matched, self._unmatched, self._first_unmatched = 0, 0, list[str]()
        if self._published:
            self._warn_of_groups_in_several_splits()

    def join(self, clip: MediaFile) -> MediaFile:
        """The clip with what the lists say; itself if they do not have it."""
        row = self._find(clip.source)
        if row is None:
            if clip.refusal is None:
                self._unmatched += 1
                self._first_unmatched += [clip.source] if self._unmatched <= NAMED else []
            return clip
        clip_id, group, annotations = row
        self._matched += 1
        self._index.execute("update rows set seen = 1 where clip_id = ?", (clip_id,))
        words = tuple(json.loads(annotations)) or clip.annotations
        return replace(clip, group=group, annotations=words, split=self._split(group))

    def missing(self) -> Iterator[MediaFile]:
        """A refusal for each row without a file, in the order of the lists."""
        query = "select clip_id, group_name, annotations, file, line, source from rows where not seen order by rowid"
        for clip_id, group, annotations, file, line, source in self._index.execute(query):
            where = self._files[file]
            refusal = ("not-found", f"line {line} of {where.name}, but no file of corpus.clips has its name")
            words = tuple(json.loads(annotations))
            yield MediaFile(clip_id, group, where, 0, 0, words, source, refusal, self._split(group))

    def check(self, root: Path, unmatched: Literal["stop", "warn"]) -> None:
        """Stop, or warn, of files that the lists do not have.

        Raises EarshotError for them if they stop, and if no file is in the lists.
        """
        if not self._unmatched:
            return
        names = printable(", ".join(self._first_unmatched))
        if not self._matched:
            (first,) = self._index.execute("select clip_id from rows order by rowid limit 1").fetchone()
            raise EarshotError(
                f"{self.path}: names none of the {self._unmatched:,} files of {root}; the first are {names}, the first "
                f"row is {printable(first)}"
            )
        more = ", ..." if self._unmatched > NAMED else ""
        text = f"{self.path}: {self._unmatched:,} files of {root} have no row: {names}{more}"
        if unmatched == "stop":
            raise EarshotError(f"{text}; correct the list, or set corpus.unmatched=warn")
        warnings.warn(f"{text}; they have no annotations from it", stacklevel=2)

    def _add(self, file: int, line: int, row: ManifestRow) -> None:
        query = "select annotations, file, split from rows where clip_id = ?"
        earlier = self._index.execute(query, (row.clip_id,)).fetchone()
        rank = BY_RANK.index(row.split)
        if earlier is None:
            video = row.clip_id.rpartition("_")[0]
            values = row.clip_id, video, row.group, json.dumps(row.annotations), rank, file, line, row.source
            self._index.execute("insert into rows values (?, ?, ?, ?, ?, ?, ?, ?, 0)", values)
            return
        words, of_file, of_split = json.loads(earlier[0]), earlier[1], earlier[2]
        if row.annotations:
            words = [*dict.fromkeys([*(words if of_file == file else ()), *row.annotations])]
        change = "update rows set annotations = ?, file = ?, line = ?, split = ? where clip_id = ?"
        self._index.execute(change, (json.dumps(words), file, line, rank or of_split, row.clip_id))

    def _find(self, source: str) -> tuple[str, str, str] | None:
        if not source.isprintable():  # bytes that are no text are in no list
            return None
        columns = "select clip_id, group_name, annotations from rows where"
        stem = PurePosixPath(source).stem
        for name in _clip_ids(stem):
            if row := self._index.execute(f"{columns} clip_id = ?", (name,)).fetchone():
                return row
        for video in _sources(source, stem):
            rows = self._index.execute(f"{columns} video = ? limit 2", (video,)).fetchall()
            if len(rows) == 1:
                return rows[0]
        return None

    def _ranks(self) -> set[int]:
        return {rank for (rank,) in self._index.execute("select distinct split from rows")} - {0}

    def _split(self, group: str) -> str:
        """The published split of a group, or an empty text where its hash decides."""
        if not self._published:
            return ""
        (rank,) = self._index.execute("select max(split) from rows where group_name = ?", (group,)).fetchone()
        split = BY_RANK[rank]
        return "val" if split == "train" and not self._has_val and split_of(group) == "val" else split

    def _warn_of_groups_in_several_splits(self) -> None:
        several = "select group_name from rows where split group by group_name having min(split) < max(split)"
        (count,) = self._index.execute(f"select count(*) from ({several})").fetchone()
        if count:
            (first,) = self._index.execute(f"{several} limit 1").fetchone()
            text = f"{count:,} videos have clips in several splits, the first is {printable(first)}"
            warnings.warn(f"{self.path}: {text}; all clips of each are in test, or else in val", stacklevel=3)


def joined_lists(path: Path | None, splits: Literal["group", "manifest"]) -> JoinedLists | None:
    """The lists of a path, if there is one.

    Raises EarshotError as `JoinedLists` does, and if lists should decide the splits and there are none.
    """
    if path is None and splits == "manifest":
        raise EarshotError("corpus.split is manifest, but corpus.clips_manifest is none; name the list")
    return JoinedLists(path, splits) if path else None


def _clip_ids(stem: str) -> Iterator[str]:
    """The names that the row of a file may have, the likeliest first."""
    yield stem
    for name in (stem, stem.removeprefix("Y")):
        match = VIDEO_AND_START.fullmatch(name)
        if match and match[2]:
            seconds, milliseconds = round(float(match[2]) * 1000), match[2]
            in_seconds = "." in milliseconds or len(milliseconds) == 6
            names = [f"{match[1]}_{seconds}"] + ([] if "." in milliseconds else [f"{match[1]}_{int(milliseconds)}"])
            yield from names if in_seconds else reversed(names)


def _sources(source: str, stem: str) -> Iterator[str]:
    """The names that the source of a file may have: its path, without outer folders and tars, and a YouTube video."""
    parts = source.split("/")
    for begin in range(len(parts)):
        with suppress(ValueError):
            yield path_name("/".join(parts[begin:]))
    yield from (name for name in (stem, stem.removeprefix("Y")) if VIDEO_AND_START.fullmatch(name))
