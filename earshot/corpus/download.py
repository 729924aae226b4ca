"""From a manifest to shards of clips: who is asked for, what became of each, and the tar files.

A clip is written beside a journal of outcomes as soon as it is there, so that after a kill, or while some are pending,
nothing is asked for twice. A shard becomes a tar file (the WebDataset convention) when all its clips are settled.
"""

import hashlib
import json
import os
import shutil
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from earshot.corpus.cutting import cut
from earshot.corpus.dealing import read_asked
from earshot.corpus.fetching import fetch
from earshot.corpus.guard import Lost, guarded_map
from earshot.corpus.ledger import PENDING_REASONS, LedgerRow, Refusal, count, read_ledger, write_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.pipeline.shards import shard_name, write_atomically

JOURNAL = "journal.jsonl"
FETCHED = "fetched"  # the folder of the address last fetched, beside the clips


@dataclass(frozen=True)
class Job:
    """How the clips of a manifest are had, and where they go.

    `media` is the folder that local paths start from, `asked` and `clips` hold what is asked for and what has come,
    shard by shard, `out` is the output of the stage. `seconds` and `megabytes` limit the work on one clip.
    """

    media: Path
    asked: Path
    clips: Path
    out: Path
    seconds: float
    megabytes: float
    accept_pending: bool


def download_shard(job: Job, number: int) -> dict[str, int]:
    """Get what is still missing of one shard, write its ledger, and its tar file once no row is pending.

    Returns counts under the names of the metrics, and pending_<reason>.
    """
    name = shard_name(number)
    ledger, tar, folder = job.out / "ledger" / f"{name}.csv", job.out / f"{name}.tar", job.clips / name
    rows = read_ledger(ledger) if ledger.exists() else []
    if not rows or _pending(rows):
        rows = _get_all(job, read_asked(job.asked / f"{name}.jsonl"), folder)
        if job.accept_pending or not _pending(rows):
            _write_tar(tar, folder, [row.clip_id for row in rows if row.status == "kept"])
        write_ledger(ledger, rows)
    if not _pending(rows):
        shutil.rmtree(folder, ignore_errors=True)  # all of it is in the tar file
    waiting = Counter(f"pending_{row.reason}" for row in _pending(rows))
    return count(rows, total="clips_asked") | waiting


def _pending(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.status == "pending"]


def _get_all(job: Job, asked: list[ManifestRow], folder: Path) -> list[LedgerRow]:
    """A ledger row for every row asked for: from the journal what is settled, the others by asking now."""
    folder.mkdir(parents=True, exist_ok=True)
    settled = {row.clip_id: row for row in _read_journal(folder / JOURNAL) if row.status != "pending"}
    missing = [row for row in asked if row.clip_id not in settled]
    with open(folder / JOURNAL, "a", encoding="utf-8") as journal:
        for row, result in guarded_map(partial(_get, job, folder), missing, seconds=job.seconds):
            outcome = _lost(result, job.seconds) if isinstance(result, Lost) else result
            settled[row.clip_id] = LedgerRow(row.clip_id, row.source, *outcome)
            journal.write("\n" + json.dumps(asdict(settled[row.clip_id])))
            journal.flush()
    shutil.rmtree(folder / FETCHED, ignore_errors=True)
    return [settled[row.clip_id] for row in asked]


def _read_journal(path: Path) -> Iterator[LedgerRow]:
    """The outcomes so far; a line that a kill has cut off is as good as not written."""
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            yield LedgerRow(**json.loads(line))
        except ValueError:
            continue


def _get(job: Job, folder: Path, row: ManifestRow) -> tuple[str, str, str]:
    """Get one clip into `folder`, with the json beside it that goes into the tar.

    Returns status, reason and detail for the ledger.
    """
    try:
        sources = [_local_file(job, row.source)] if row.is_local else _fetched(job, row.source, folder / FETCHED)
        seconds = cut(sources, row.start, row.end, folder / f"{row.clip_id}.mp4")
    except Refusal as refusal:
        status = "pending" if refusal.reason in PENDING_REASONS else "refused"
        return status, refusal.reason, refusal.detail
    about = {
        "group": row.group,
        "annotations": row.annotations,
        "start": row.start,
        "end": row.end,
        "seconds": round(seconds, 3),
        "source": row.source,
    }
    with write_atomically(folder / f"{row.clip_id}.json") as growing:
        growing.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    return "kept", "", f"{seconds:.2f} s"


def _fetched(job: Job, address: str, folder: Path) -> list[Path]:
    """The files behind an address, in `folder`, which holds one source: clips of one video in a row fetch it once."""
    whole = folder / hashlib.sha256(address.encode()).hexdigest()
    if not whole.exists():
        shutil.rmtree(folder, ignore_errors=True)
        fetch(address, folder / "growing", megabytes=job.megabytes, seconds=job.seconds)
        os.replace(folder / "growing", whole)
    return sorted(whole.iterdir())


def _lost(lost: Lost, seconds: float) -> tuple[str, str, str]:
    if lost.hung:
        return "refused", "timeout", f"not done within {seconds:g} s"
    end = "gave no answer" if lost.exit_code is None else f"ended with {lost.exit_code}"
    return "refused", "unreadable", f"the process that read it {end}"


def _local_file(job: Job, source: str) -> Path:
    """The file of a local row: below the manifest's folder in truth, a plain file, and not too large."""
    path = job.media / source
    try:
        status = os.stat(path)
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(job.media))
    except OSError as error:
        raise Refusal("not-found", error.strerror or "no such file") from None
    if not inside:
        raise Refusal("forbidden", "the path leads out of the manifest's folder")
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("unreadable", "not a file")
    if status.st_size > job.megabytes * 1e6:
        raise Refusal("too-large", f"{status.st_size / 1e6:.1f} MB, at most {job.megabytes:g} MB are read")
    return path


def _write_tar(path: Path, folder: Path, clip_ids: Iterable[str]) -> None:
    """The kept clips as a tar file whose bytes depend on nothing but them: sorted, no times, no owners."""
    with write_atomically(path) as growing, tarfile.open(growing, "w", format=tarfile.USTAR_FORMAT) as tar:
        for clip_id in sorted(clip_ids):
            for suffix in ("json", "mp4"):
                name = f"{clip_id}.{suffix}"
                entry = tarfile.TarInfo(name)
                entry.size = (folder / name).stat().st_size
                with open(folder / name, "rb") as file:
                    tar.addfile(entry, file)
