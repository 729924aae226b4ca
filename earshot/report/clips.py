"""Clips that were left out or flagged, with reason and measurements, and the completeness of each split and class.

The page needs no exhibit, only what the stages download and extract wrote.
"""

import re
from collections import Counter
from itertools import islice
from typing import Any

from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.corpus.ledger import MEDIA_REASONS, PENDING_REASONS, QUALITY_REASONS, read_ledger
from earshot.report.columns import Column, Page
from earshot.report.site import Numbers, Site, share
from earshot.report.sources import Source
from earshot.results.clip_outcomes import FLAGGED, LEDGERS, ClipOutcome, ignored_files, thumbnails

MOST_ROWS = 1000  # clips listed
MOST_IMAGES = 200
MOST_CLASSES = 200
SAME_AS = re.compile(r"the same as (\S+)")  # how the detail of a duplicate begins
STAGES = {"download": "Downloading", "extract": "Extracting"}


def column(site: Site, source: Source, prefix: str) -> Column:
    """The clips of a run that were left out or flagged."""
    stages = [_stage(source, stage) for stage in LEDGERS]
    requested = max((stage["clips"] for stage in stages), default=0)
    if not requested:
        why = source.absent or "there is no ledger in data/clips and data/scenes"
        return Column(source.name, f"Skipped because {why}.", why)
    listed = (row for row in source.clip_outcomes(lambda status: status != "kept"))
    rows = [*islice(listed, MOST_ROWS)]
    rest = sum(1 for _ in listed)
    flagged = {row.clip_id for row in rows if row.status == FLAGGED}
    decoded = flagged | {row.clip_id for row in rows if row.stage == "extract" and row.reason in QUALITY_REASONS}
    displayed = {name: name for name in decoded} | _originals(rows)
    frames = dict(islice(thumbnails(source.root, {*displayed.values()}), MOST_IMAGES)) if displayed else {}
    images = {name: site.image(frame, f"the frame of {name}") for name, frame in frames.items()}
    view = {
        "stages": stages,
        "reasons": _reasons(stages, rows),
        "splits": _completeness(source),
        "ignored": _ignored(source),
        "rows": rows,
        "total": len(rows) + rest,
        "displayed": {name: original for name, original in displayed.items() if original in images},
        "images": images,
        "classes": sorted({name for row in rows for name in row.classes.split("; ") if name})[:MOST_CLASSES],
        "kinds": sorted({row.reason for row in rows if row.reason}),
    }
    left_out = sum(stage["left_out"] for stage in stages)
    lead = (
        f"{left_out:,} of {requested:,} clips were left out; each has a reason."
        if left_out
        else f"None of the {requested:,} clips was left out."
    )
    return Column(source.name, lead + (f" {len(flagged):,} are flagged." if flagged else ""), view=view)


def _stage(source: Source, stage: str) -> dict[str, Any]:
    """The counts of a stage's ledger; one shard in memory at a time."""
    counts: Counter[tuple[str, str]] = Counter()
    for shard in source.ledger_shards(stage):
        counts.update((row.status, row.reason) for row in read_ledger(shard))
    kept = counts["kept", ""]
    left_out = counts.total() - kept
    return {"name": STAGES[stage], "clips": counts.total(), "kept": kept, "left_out": left_out, "counts": counts}


def _reasons(stages: list[dict[str, Any]], listed: list[ClipOutcome]) -> Numbers:
    rows = [
        (stage["name"], status, reason, _kind(reason), number)
        for stage in stages
        for (status, reason), number in sorted(stage["counts"].items(), key=lambda item: (-item[1], item[0]))
        if reason
    ]
    flags = Counter(flag for row in listed if row.status == FLAGGED for flag in row.reason.split(", "))
    rows += [(STAGES["extract"], FLAGGED, flag, _kind(flag), number) for flag, number in flags.most_common()]
    return Numbers("Left out or flagged, by stage and reason", ("stage", "status", "reason", "concerns", "clips"), rows)


def _originals(rows: list[ClipOutcome]) -> dict[str, str]:
    """By the name of a refused duplicate, the clip whose sound or images it has."""
    matches = {row.clip_id: SAME_AS.match(row.detail) for row in rows if row.reason == "duplicate"}
    return {name: match[1] for name, match in matches.items() if match}


def _ignored(source: Source) -> Numbers | None:
    rows = [(each.kind, each.files, each.first) for each in ignored_files(source.root)]
    columns, where = ("suffix", "files", "the first"), "data/scenes/ignored.csv"
    return Numbers("Files that are no clips, by suffix", columns, rows, where) if rows else None


def _kind(reason: str) -> str:
    if reason in MEDIA_REASONS:
        return "the file"
    if reason in QUALITY_REASONS:
        return "its quality"
    return "the source, for now" if reason in PENDING_REASONS else "the source"


def _completeness(source: Source) -> list[Numbers]:
    """Tables by split, and by class with the least complete first."""
    rows = source.table("completeness")
    heads = ("requested", "kept", "share kept", "pending", "refused")
    splits = [(row["split"], *_counts(row)) for row in rows if row["class"] == EVERY_CLIP]
    classes = [row for row in rows if row["class"] != EVERY_CLIP and row["split"] == ALL]
    classes.sort(key=lambda row: (float(row["share_kept"]), -int(row["requested"]), row["class"]))
    listed = [(row["class"], *_counts(row)) for row in classes[:MOST_CLASSES]]
    part = f" ({len(listed)} of {len(classes)})" if len(listed) < len(classes) else ""
    tables = [
        Numbers("By split", ("split", *heads), splits, "metrics/completeness.csv"),
        Numbers(f"By class, the least complete first{part}", ("class", *heads), listed, "metrics/completeness.csv"),
    ]
    return [table for table in tables if table.rows]


def _counts(row: dict[str, str]) -> tuple[int, int, str, int, int]:
    requested, kept, pending, refused = (int(row[name]) for name in ("requested", "kept", "pending", "refused"))
    return requested, kept, share(float(row["share_kept"])), pending, refused


PAGE = Page(
    "The clips that were left out or flagged, with the reason and what was measured. Every missing clip has a row; "
    "the command earshot completeness --csv writes the same rows, and those of the kept clips.",
    column,
    "clips.html",
)
