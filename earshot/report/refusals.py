"""Refusals: the clips that were left out, by stage and reason, and the completeness of each split and class."""

from collections import Counter
from typing import Any

from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.corpus.ledger import MEDIA_REASONS, PENDING_REASONS, QUALITY_REASONS, read_ledger
from earshot.report.columns import Column, Page
from earshot.report.site import Numbers, Site, share
from earshot.report.sources import LEDGERS, Source

MOST_ROWS = 1000  # refusals listed per stage
MOST_CLASSES = 200
STAGES = {"download": "Downloading", "extract": "Extracting"}


def column(site: Site, source: Source, prefix: str) -> Column:
    """The refusals of a run."""
    stages = [_stage(source, stage) for stage in LEDGERS]
    requested = max((stage["clips"] for stage in stages), default=0)
    if not requested:
        why = source.absent or "there is no ledger in data/clips and data/scenes"
        return Column(source.name, f"Skipped because {why}.", why)
    view = {"stages": stages, "reasons": _reasons(stages), "splits": _completeness(source)}
    left_out = sum(stage["left_out"] for stage in stages)
    lead = (
        f"{left_out:,} of {requested:,} clips were left out; each has a reason."
        if left_out
        else f"None of the {requested:,} clips was left out."
    )
    return Column(source.name, lead, view=view)


def _stage(source: Source, stage: str) -> dict[str, Any]:
    """The counts of a stage's ledger and its first refusals; one shard in memory at a time."""
    counts: Counter[tuple[str, str]] = Counter()
    listed: list[Any] = []
    for shard in source.ledger_shards(stage):
        for row in read_ledger(shard):
            counts[row.status, row.reason] += 1
            if row.status != "kept" and len(listed) < MOST_ROWS:
                listed.append(row)
    kept = counts["kept", ""]
    return {
        "name": STAGES[stage],
        "ledger": LEDGERS[stage],
        "clips": counts.total(),
        "kept": kept,
        "left_out": counts.total() - kept,
        "counts": counts,
        "rows": listed,
    }


def _reasons(stages: list[dict[str, Any]]) -> Numbers:
    rows = [
        (stage["name"], status, reason, _kind(reason), number)
        for stage in stages
        for (status, reason), number in sorted(stage["counts"].items(), key=lambda item: (-item[1], item[0]))
        if reason
    ]
    return Numbers("Left out, by stage and reason", ("stage", "status", "reason", "concerns", "clips"), rows)


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
    "The clips that were left out, with the stage and the reason. Every missing clip has a row.",
    column,
    "refusals.html",
)
