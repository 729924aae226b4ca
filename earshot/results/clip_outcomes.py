"""What became of each clip: refused, pending, flagged or kept, with the reason and what was measured.

It needs no exhibit: only the ledgers of download and extract, and the tables of extract where they exist.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from earshot.corpus.completeness import requested_shards
from earshot.corpus.ignored import IgnoredFiles, read_ignored
from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.corpus.requested import read_requested
from earshot.corpus.split import split_of
from earshot.scenes.annotations import read_annotations
from earshot.scenes.refused import read_refused_images
from earshot.scenes.table import read_scenes

CLIPS, SCENES, ANNOTATIONS = "data/clips", "data/scenes", "data/annotations"
LEDGERS = {"download": f"{CLIPS}/ledger", "extract": f"{SCENES}/ledger"}  # by stage
MEASURED = ("split", "flags", "peak", "clipped", "change")  # columns of a scene
FLAGGED = "flagged"


@dataclass(frozen=True)
class ClipOutcome:
    """What became of a clip.

    Args:
        clip_id: its name.
        source: its path or address.
        stage: the stage that decided.
        status: refused, pending, flagged or kept.
        reason: of a refusal, or the flags.
        detail: one line for a human; that of a duplicate names the other clip.
        split, classes: empty if they are not known, as of a refused clip of a folder.
        peak: the largest level of its sound, from 0 to 1; this and the next two are None unless extract kept the clip.
        clipped: the share of its sound's samples at full level.
        motion: how much its images change.
    """

    clip_id: str
    source: str
    stage: str
    status: str
    reason: str = ""
    detail: str = ""
    split: str = ""
    classes: str = ""
    peak: float | None = None
    clipped: float | None = None
    motion: float | None = None


COLUMNS = tuple(each.name for each in fields(ClipOutcome))


def ledger_shards(root: Path, stage: str, downloaded: bool = True) -> list[Path]:
    """The ledgers of a stage, one CSV file per shard; none for the download of another corpus."""
    if stage == "download" and not downloaded:
        return []
    return sorted((root / LEDGERS[stage]).glob("*.csv"))


def clip_outcomes(
    root: Path, downloaded: bool = True, selected: Callable[[str], bool] = lambda status: True
) -> Iterator[ClipOutcome]:
    """What became of each clip, by stage and shard; one shard in memory at a time.

    Args:
        root: of the run.
        downloaded: whether the corpus is that of the stage download.
        selected: whether to return a clip, by its status.

    Raises EarshotError for a ledger or a table that cannot be read.
    """
    for shard in ledger_shards(root, "download", downloaded):
        known = _requested(root / CLIPS, shard.stem)
        for row in read_ledger(shard):
            if row.status != "kept" and selected(row.status):
                yield _refused(row, "download", *known.get(row.clip_id, ("", "")))
    for shard in ledger_shards(root, "extract"):
        yield from _extracted(root, shard, selected)


def ignored_files(root: Path) -> list[IgnoredFiles]:
    """The files of the corpus that are no clips, by suffix."""
    return read_ignored(root / SCENES)


def _extracted(root: Path, shard: Path, selected: Callable[[str], bool]) -> Iterator[ClipOutcome]:
    name = f"{shard.stem}.parquet"
    scenes = _scenes(root / SCENES / name)
    classes = _annotations(root / ANNOTATIONS / name)
    requested = _requested(root / CLIPS, shard.stem)
    for row in read_ledger(shard):
        scene = scenes.get(row.clip_id)
        status = FLAGGED if scene and scene["flags"] else row.status
        if not selected(status):
            continue
        if scene is None:
            yield _refused(row, "extract", *requested.get(row.clip_id, ("", "")))
            continue
        values = {"split": scene["split"], "classes": "; ".join(classes.get(row.clip_id, ()))}
        measured = {"peak": scene["peak"], "clipped": scene["clipped"], "motion": scene["change"]}
        flags = ", ".join(scene["flags"])
        yield ClipOutcome(row.clip_id, row.source, "extract", status, flags, row.detail, **values, **measured)


def _refused(row: LedgerRow, stage: str, group: str, classes: str) -> ClipOutcome:
    split = split_of(group) if group else ""
    return ClipOutcome(row.clip_id, row.source, stage, row.status, row.reason, row.detail, split, classes)


def _requested(clips: Path, shard: str) -> dict[str, tuple[str, str]]:
    """The group and the classes of the requested clips of one shard; empty for clips that were not downloaded."""
    files = [requested for requested, _ in requested_shards(clips) if requested.stem == shard]
    return {row.clip_id: (row.group, "; ".join(row.annotations)) for file in files for row in read_requested(file)}


def _scenes(table: Path) -> dict[str, Mapping]:
    if not table.exists():
        return {}
    rows = (row for group in read_scenes(table, ["clip_id", *MEASURED]) for row in group.to_pylist())
    return {row["clip_id"]: row for row in rows}


def _annotations(table: Path) -> dict[str, Sequence[str]]:
    return dict(read_annotations(table)) if table.exists() else {}


def thumbnails(root: Path, clip_ids: set[str]) -> Iterator[tuple[str, bytes]]:
    """The first frame, JPEG, of those clips that extract kept, and of some of those that it decoded and refused."""
    yield from ((name, image) for name, image in read_refused_images(root / SCENES) if name in clip_ids)
    for table in sorted((root / SCENES).glob("*.parquet")):
        if not clip_ids.isdisjoint(_scenes(table)):
            for group in read_scenes(table, ["clip_id", "frames"]):
                for name, frames in zip(group["clip_id"].to_pylist(), group["frames"], strict=True):
                    if name in clip_ids:
                        yield name, frames[0].as_py()
