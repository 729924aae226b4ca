"""How far downloading is, and what came of it.

The first is told from what lies in the scratch folder: no lock is taken, a run may go on meanwhile.
"""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.download.clips import JOURNAL, Entry, Job, read_journal
from earshot.download.rate_limit import Host, RateLimiter, clock

OF_LATE = 3600.0  # seconds over which the pace is taken


def progress(asked: Path, clips: Path, placed: Path) -> dict[str, int | float]:
    """Counts of the clips by outcome, how many an hour are settled of late, and the hours left at that pace.

    `asked` and `clips` are the folders of a run that is not finished, with what it asks for and what has come;
    `placed` is the ledger of a finished one, which is told of where there is no other. Kept and refused clips are
    settled. hours_left counts pending ones as still to come, and is there only where something came of late.
    """
    counts: Counter[str] = Counter()
    late: list[float] = []
    now, total = time.time(), 0
    deranged = sorted(asked.glob("*.jsonl"))
    for path in deranged:
        with open(path, "rb") as file:
            total += sum(1 for _ in file)
        # Shard by shard, so that memory does not grow with the corpus.
        last = {entry.row.clip_id: entry for entry in read_journal(clips / path.stem / JOURNAL)}
        counts.update(_outcome(entry.row) for entry in last.values())
        late += [entry.at for entry in last.values() if _is_late(entry, now)]
    if not deranged:
        ledgers = sorted(placed.glob("*.csv"))
        counts.update(_outcome(row) for path in ledgers for row in read_ledger(path))
        total = counts.total()
    settled = sum(number for name, number in counts.items() if not name.startswith("pending"))
    metadata = {"clips_requested": total, "clips_kept": counts.pop("clips_kept", 0), **dict(sorted(counts.items()))}
    return (
        metadata
        | {"not_yet_requested": total - counts.total() - metadata["clips_kept"]}
        | _pace(late, now, total - settled)
    )


def _outcome(row: LedgerRow) -> str:
    return "clips_kept" if row.status == "kept" else f"{row.status}_{row.reason}"


def _is_late(entry: Entry, now: float) -> bool:
    return entry.row.status != "pending" and entry.at > now - OF_LATE


def _pace(late: list[float], now: float, left: int) -> dict[str, float]:
    """Clips an hour, over the last hour or since its first clip, and the hours that `left` clips take."""
    if len(late) < 2:
        return {"clips_an_hour": len(late)}
    an_hour = len(late) / (now - min(late)) * 3600
    return {"clips_an_hour": round(an_hour, 1), "hours_left": round(left / an_hour, 2)}


def sites(limiter: RateLimiter) -> dict[str, str]:
    """The sites that are not asked now, and those that have never given anything."""
    held = {f"held {host.host}": f"{host.reason}, until {clock(host.until)}" for host in limiter.held().values()}
    return held | {f"gives nothing {site.host}": _in_vain(site) for site in limiter.never_succeeded().values()}


def pending_line(counts: Counter[str], job: Job) -> str:
    """What to say when clips are pending."""
    held = [host for host in job.limiter.held().values() if job.limiter.too_long(host)]
    when = f"after {clock(min(host.until for host in held))}" if held else "later"
    reasons = ", ".join(f"{counts[name]} {name[8:]}" for name in sorted(counts) if name.startswith("pending_"))
    return (
        f"{counts['clips_pending']} of {counts['clips_requested']} clips are pending ({reasons}; {job.out / 'ledger'}): "
        f"run again {when} and these alone are asked for, or go on without them with corpus.accept_pending=true"
    ) + "".join(f"; {site.host} gives {_in_vain(site)}" for site in job.limiter.never_succeeded().values())


def closing_line(counts: Mapping[str, int]) -> str:
    """What came out and what was left out, from the metrics."""
    left_out = [f"{number:,} {name[8:]}" for name, number in counts.items() if name.startswith("refused_")]
    left_out += [f"{counts['clips_pending']:,} pending"] if counts["clips_pending"] else []
    kept = f"{counts['clips_kept']:,} of {counts['clips_requested']:,} clips kept"
    return f"{kept}; left out: {', '.join(left_out) or 'none'}"


def _in_vain(site: Host) -> str:
    """What to say of a site that has never given anything."""
    return f"nothing in {site.failures} tries, and it may never; corpus.accept_pending=true goes on without it"
