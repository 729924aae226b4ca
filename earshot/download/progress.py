"""The progress and the result of a download.

The progress is read from the scratch folder without a lock, so it works during a run.
"""

import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from earshot.corpus.ledger import LedgerRow, read_ledger
from earshot.download.clips import JOURNAL, Entry, Job, read_journal
from earshot.download.rate_limit import Host, RateLimiter, clock
from earshot.params.download import CorpusList

ADVICE = (  # about unclear failures
    "unclear answers often mean that the site has changed: update yt-dlp (pip install --upgrade yt-dlp), check its "
    "JavaScript runtime (EARSHOT_JS_RUNTIME), or try EARSHOT_COOKIES"
)
NAMED_CLASSES = 5  # more are only counted
RATE_PERIOD_SECONDS = 3600.0  # s; the rate is that of this period


def progress(requested: Path, clips: Path, published_ledger: Path) -> dict[str, int | float]:
    """Counts of the clips by outcome, the clips settled per hour, and the hours left at that rate.

    `requested` and `clips` are the folders of an unfinished run: its lists of requested clips, its downloaded clips.
    `published_ledger` is the ledger of a finished run, used if there is no unfinished one. Kept and refused clips are
    settled. hours_left counts pending clips as remaining, and is present only if clips were settled recently.
    """
    counts: Counter[str] = Counter()
    recent: list[float] = []
    now, total = time.time(), 0
    lists = sorted(requested.glob("*.jsonl"))
    for path in lists:
        with open(path, "rb") as file:
            total += sum(1 for _ in file)
        # Shard by shard, so that memory does not grow with the corpus.
        last = {entry.row.clip_id: entry for entry in read_journal(clips / path.stem / JOURNAL)}
        counts.update(_outcome(entry.row) for entry in last.values())
        recent += [entry.at for entry in last.values() if _is_recent(entry, now)]
    if not lists:
        ledgers = sorted(published_ledger.glob("*.csv"))
        counts.update(_outcome(row) for path in ledgers for row in read_ledger(path))
        total = counts.total()
    settled = sum(number for name, number in counts.items() if not name.startswith("pending"))
    metadata = {"clips_requested": total, "clips_kept": counts.pop("clips_kept", 0), **dict(sorted(counts.items()))}
    return (
        metadata
        | {"not_yet_requested": total - counts.total() - metadata["clips_kept"]}
        | _rate(recent, now, total - settled)
    )


def list_line(corpus: CorpusList, is_other: bool) -> str:
    """The list and the selection that `--status` speaks of.

    `is_other` if there is only data/clips, which came from another list, selection or limits.
    """
    selected = [f"{len(corpus.select.classes)} classes"] if corpus.select.classes else []
    if 0 < len(corpus.select.classes) <= NAMED_CLASSES:
        selected = [f"classes {', '.join(corpus.select.classes)}"]
    selected += [f"at most {corpus.select.clips:,} clips"] if corpus.select.clips else []
    line = "; ".join([corpus.manifest, *selected])
    return f"data/clips, made by another request than that of {line}" if is_other else line


def _outcome(row: LedgerRow) -> str:
    return "clips_kept" if row.status == "kept" else f"{row.status}_{row.reason}"


def _is_recent(entry: Entry, now: float) -> bool:
    return entry.row.status != "pending" and entry.at > now - RATE_PERIOD_SECONDS


def _rate(recent: list[float], now: float, remaining: int) -> dict[str, float]:
    """Clips per hour, over the last hour or since its first clip, and the hours for the `remaining` clips."""
    if len(recent) < 2:
        return {"clips_an_hour": len(recent)}
    an_hour = len(recent) / (now - min(recent)) * 3600
    return {"clips_an_hour": round(an_hour, 1), "hours_left": round(remaining / an_hour, 2)}


def sites(limiter: RateLimiter) -> dict[str, str]:
    """The sites that are limited now, and those that have never given a video."""
    hosts = limiter.limited().values()
    limited = {f"limited {host.host}": f"{host.reason}, until {clock(host.until)}" for host in hosts}
    never = limiter.never_succeeded().values()
    return limited | {f"never succeeded {site.host}": _never_succeeded(site) for site in never}


def pending_line(counts: Counter[str], job: Job) -> str:
    """The error about pending clips."""
    limited = [host for host in job.limiter.limited().values() if job.limiter.exceeds_patience(host)]
    when = f"after {clock(min(host.until for host in limited))}" if limited else "later"
    reasons = ", ".join(f"{counts[name]} {name[8:]}" for name in sorted(counts) if name.startswith("pending_"))
    clips = f"{counts['clips_pending']} of {counts['clips_requested']} clips"
    return (
        (
            f"{clips} are pending ({reasons}; {job.out / 'ledger'}): "
            f"run again {when} to request only these, or continue without them with corpus.accept_pending=true"
        )
        + (f"; {ADVICE}" if counts["pending_unclear"] else "")
        + "".join(f"; {site.host}: {_never_succeeded(site)}" for site in job.limiter.never_succeeded().values())
    )


def closing_line(counts: Mapping[str, int]) -> str:
    """The numbers of kept and left-out clips, from the metrics."""
    left_out = [f"{number:,} {name[8:]}" for name, number in counts.items() if name.startswith("refused_")]
    left_out += [f"{counts['clips_pending']:,} pending"] if counts["clips_pending"] else []
    kept = f"{counts['clips_kept']:,} of {counts['clips_requested']:,} clips kept"
    return f"{kept}; left out: {', '.join(left_out) or 'none'}"


def _never_succeeded(site: Host) -> str:
    """The message about a site that has never given a video."""
    return f"no video in {site.failures} tries; to continue without this site, set corpus.accept_pending=true"
