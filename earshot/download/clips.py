"""Download one shard of clips: request each clip, record its outcome, and write the tar file.

Each clip is written at once, with its outcome in a journal, so that after a kill, or while some clips are pending, no
clip is requested twice. When all clips of a shard are settled, it becomes a tar file (the WebDataset convention).

Temporary failures are retried in the same run. A 403, or a page without a video, counts as permanent only if a second
request fails too while a known-good video still downloads, before and after it; usually it means that the site limits
us. A failure of a kind that we do not know never refuses a clip.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from earshot.core.errors import EarshotError
from earshot.core.files import real_path, shard_name, write_atomically
from earshot.core.messages import first_line
from earshot.core.subprocess_pool import Failure, Limits, guarded_map
from earshot.corpus.ledger import PENDING_REASONS, LedgerRow, Refusal, read_ledger, write_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.requested import public_row, read_requested
from earshot.download.cutting import cut
from earshot.download.earlier import Earlier, count_outcomes
from earshot.download.partial_download import NoRanges, VideoSection
from earshot.download.rate_limit import FAILURE_KINDS, RateLimited, RateLimiter, Visit, clock, site_of
from earshot.download.yt_dlp_client import check_address, fetch, fetch_section, programs_and_settings

Fetched = TypeVar("Fetched")
JOURNAL = "journal.jsonl"
FETCHED = "fetched"  # the folder of the last fetched address, beside the clips
TRIES = 3  # of a clip in one run
MAX_MEMORY = 1 << 30  # bytes, of the process that downloads a clip and again of the ffmpeg that cuts it
DOUBTED = {reason: kind.doubted for reason, kind in FAILURE_KINDS.items() if kind.doubted}
LONG_AGO = 0.0  # the request time of clips taken over from an earlier run


@dataclass(frozen=True)
class Job:
    """How to download the clips of a manifest, and where to put them.

    `media` is the folder of local paths; `requested` and `clips` hold the lists of requested clips and the downloaded
    clips, by shard; `out` is the output of the stage. `seconds` and `megabytes` limit the work on one clip, `limiter`
    the requests to each site; `hosts` are those of the whole list. `fetch` is `whole` for whole sources or `section`
    for the section of each clip. `earlier` holds the clips of an earlier run.
    """

    media: Path
    requested: Path
    clips: Path
    out: Path
    seconds: float
    megabytes: float
    fetch: str
    accept_pending: bool
    limiter: RateLimiter
    earlier: Earlier | None = None
    hosts: frozenset[str] = frozenset()


def download_shard(job: Job, number: int) -> dict[str, int]:
    """Download the missing clips of one shard, write its ledger, and its tar file when no row is pending.

    Returns counts under the names of the metrics, and pending_<reason>.
    """
    name = shard_name(number)
    ledger, tar, folder = job.out / "ledger" / f"{name}.csv", job.out / f"{name}.tar", job.clips / name
    rows = read_ledger(ledger) if ledger.exists() else []
    request_list = job.requested / f"{name}.jsonl"
    requested = read_requested(request_list)
    # Another version of this code may have put other clips into this shard.
    if _pending(rows) or [row.clip_id for row in rows] != [row.clip_id for row in requested]:
        linked = job.earlier.link_shard(number, request_list, tar) if job.earlier else None
        if linked:
            _record_all(linked, folder)
        rows = linked or _download_all(job, requested, folder)
        if not linked and (job.accept_pending or not _pending(rows)):
            _write_tar(tar, folder, [row.clip_id for row in rows if row.status == "kept"])
        write_ledger(ledger, rows)
    if not _pending(rows):
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != JOURNAL:
                path.unlink()  # the tar file holds it
    return count_outcomes(rows)


def _record_all(rows: list[LedgerRow], folder: Path) -> None:
    """Write the rows of a whole shard to its journal, for `--status`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL) as journal:
        for row in rows:
            journal.write(Entry(LONG_AGO, row))


def _pending(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.status == "pending"]


class Entry(NamedTuple):
    """A line of a journal: Unix time (s) and ledger row."""

    at: float
    row: LedgerRow


class Journal:
    """The outcomes of a shard's clips, in order of time; the last one of each clip counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Journal":
        self._file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, requested: ManifestRow, status: str, reason: str, detail: str, at: float | None = None) -> LedgerRow:
        """Record the outcome of a clip, now or at the time `at` of its last request; return its row."""
        row = LedgerRow(requested.clip_id, requested.source, status, reason, detail)
        self.write(Entry(round(time.time(), 1) if at is None else at, row))
        return row

    def write(self, entry: Entry) -> None:
        """Write a line; a later kill does not lose it."""
        self._file.write("\n" + json.dumps({"at": entry.at, **asdict(entry.row)}))
        self._file.flush()


def read_journal(path: Path) -> Iterator[Entry]:
    """The outcomes so far, in order; skips a line that a kill truncated."""
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            values = json.loads(line)
            yield Entry(values.pop("at"), LedgerRow(**values))
        except ValueError:
            continue


def _download_all(job: Job, requested: list[ManifestRow], folder: Path) -> list[LedgerRow]:
    """A ledger row for every requested row: from the journal if settled, otherwise by requesting it now.

    Temporary failures are retried after the other rows, unless their site is limited for longer than the patience.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = _last_entries(folder / JOURNAL)
    for refused in (folder / FETCHED).glob("*.json"):
        refused.unlink()  # the refusal may have been temporary
    with Journal(folder / JOURNAL) as journal:
        new = [row for row in requested if row.clip_id not in last]
        for row in job.earlier.take(new, folder) if job.earlier else ():
            last[row.clip_id] = Entry(LONG_AGO, row)
            journal.write(last[row.clip_id])
        shard = _ShardDownload(job, folder, journal, last)
        for tries in range(TRIES):
            missing = shard.missing(requested)
            if not missing:
                break
            if tries and any(shard.outcomes[row.clip_id].reason == "network" for row in missing):
                time.sleep(job.limiter.backoff * FAILURE_KINDS["network"].backoff * 2 ** (tries - 1))
            shard.download(missing)
            shutil.rmtree(folder / FETCHED, ignore_errors=True)
    return [shard.outcomes[row.clip_id] for row in requested]


def _last_entries(path: Path) -> dict[str, Entry]:
    """The last entry of each clip in a journal; rewrites the file with only these."""
    entries = {entry.row.clip_id: entry for entry in read_journal(path)}
    with write_atomically(path) as temporary_path, Journal(temporary_path) as journal:
        for entry in entries.values():
            journal.write(entry)
    return entries


class _ShardDownload:
    """One run's work on a shard: `outcomes` by clip, starting with the last entries of its journal."""

    def __init__(self, job: Job, folder: Path, journal: Journal, last: dict[str, Entry]) -> None:
        self.job, self.folder, self.journal = job, folder, journal
        self.outcomes = {clip_id: entry.row for clip_id, entry in last.items() if self._is_settled(entry.row)}
        self._requested_at = {clip_id: entry.at for clip_id, entry in last.items()}
        self._failed_once: dict[str, str] = {}  # the doubted reason of clips that failed once, perhaps by a block

    def _is_settled(self, row: LedgerRow) -> bool:
        """Whether a row needs no request: refused, or kept and its clip exists."""
        return row.status == "refused" or (row.status == "kept" and (self.folder / f"{row.clip_id}.mp4").exists())

    def missing(self, requested: list[ManifestRow]) -> list[ManifestRow]:
        """The unsettled rows whose sites accept requests; records rows of other sites as pending.

        The least recently requested rows come first, so that a row that always fails does not starve the others.
        """
        limiter = self.job.limiter
        limited = {name: host for name, host in limiter.limited().items() if limiter.exceeds_patience(host)}
        missing = []
        for row in sorted(requested, key=lambda row: self._requested_at.get(row.clip_id, 0.0)):
            outcome = self.outcomes.get(row.clip_id)
            if outcome is None or outcome.status == "pending":
                host = None if row.is_local else limited.get(_site(row.source))
                if host:
                    self._record_limited(row, host.reason, f"no request to {host.host} before {clock(host.until)}")
                else:
                    missing.append(row)
        return missing

    def download(self, rows: list[ManifestRow]) -> None:
        """Request each row once."""
        work = partial(_download_clip, self.job, self.folder)
        items = [(row, self._failed_once.get(row.clip_id, "")) for row in rows]
        with tempfile.TemporaryDirectory(dir=self.job.clips, prefix=".") as temporary:
            limits = Limits(
                self.job.seconds,
                memory=MAX_MEMORY,
                reads=(*_local_files(self.job, rows), *programs_and_settings()),
                writes=(Path(temporary), self.folder, self.job.limiter.file.parent),
                connects=True,
            )
            for (row, failed_before), result in guarded_map(work, items, limits):
                self._record(row, failed_before, result)

    def _record(self, row: ManifestRow, failed_before: str, result: Any) -> None:
        """Record the outcome of a request; a doubted reason is pending the first time."""
        status, reason, detail = _failure_row(result, self.job.seconds) if isinstance(result, Failure) else result
        if status == "limited":
            self._record_limited(row, reason, detail)
            return
        if status == "refused" and reason in DOUBTED and not row.is_local and not failed_before:
            self._failed_once[row.clip_id] = reason
            detail = f"{detail}; {reason}: either the site refuses us or only this video is at fault"
            status, reason = "pending", DOUBTED[reason]
        self.outcomes[row.clip_id] = self.journal.add(row, status, reason, detail)

    def _record_limited(self, row: ManifestRow, reason: str, detail: str) -> None:
        if row.clip_id not in self.outcomes:  # a row that was requested in this run has its own reason
            at = self._requested_at.get(row.clip_id, 0.0)
            self.outcomes[row.clip_id] = self.journal.add(row, "pending", reason, detail, at=at)


def _site(address: str) -> str:
    try:
        return site_of(address)
    except ValueError:
        return ""


def _download_clip(job: Job, folder: Path, item: tuple[ManifestRow, str]) -> tuple[str, str, str]:
    """Download one clip into `folder`, with its json file for the tar.

    `item` is the row, and the doubted reason for which it failed before, if any. Returns status, reason and detail for
    the ledger; the status `limited` means that no request was made.
    """
    row, failed_before = item
    try:
        source = _source(job, row, folder / FETCHED, failed_before)
        target = folder / f"{row.clip_id}.mp4"
        seconds = cut(source.paths, row.start, row.end, target, origin=source.origin, length=source.seconds)
    except RateLimited as limited:
        return "limited", limited.reason, limited.detail
    except Refusal as refusal:
        status = "pending" if refusal.reason in PENDING_REASONS else "refused"
        return status, refusal.reason, refusal.detail
    except (OSError, MemoryError, EarshotError, sqlite3.Error):  # not the clip's fault, or a limit's
        raise
    except Exception as error:  # of a kind that nobody has foreseen: it ends no run, and refuses no clip
        return "pending", "unclear", f"{type(error).__name__}: {first_line(error)}"
    metadata = {
        "group": row.group,
        "annotations": row.annotations,
        "start": row.start,
        "end": row.end,
        "seconds": round(seconds, 3),
        "source": public_row(row).source,
    }
    with write_atomically(folder / f"{row.clip_id}.json") as temporary_path:
        temporary_path.write_text(json.dumps(metadata, ensure_ascii=False), encoding="utf-8")
    return "kept", "", f"{seconds:.2f} s"


def _source(job: Job, row: ManifestRow, folder: Path, failed_before: str) -> VideoSection:
    """The files to cut a clip from; if it failed for a doubted reason, also checks whether the site gives others."""
    if row.is_local:
        return VideoSection([_local_file(job, row.source)])
    if failed_before:
        _check_site(job, row.source, folder, failed_before)
    try:
        return _fetched_section(job, row, folder) if job.fetch == "section" else _fetched(job, row.source, folder)
    except Refusal as refusal:
        if failed_before and refusal.reason in DOUBTED:
            _check_site(job, row.source, folder, refusal.reason)  # the site may have started to block us just now
        raise


def _fetched_section(job: Job, row: ManifestRow, folder: Path) -> VideoSection:
    """The part of a source that contains one clip, or the whole source if the server does not support ranges."""
    if not _whole(row.source, folder).exists():
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(NoRanges):
            fetching = partial(fetch_section, folder=folder / "temporary", start=row.start, end=row.end)
            return _visit(job, row.source, folder, fetching)
    return _fetched(job, row.source, folder)


def _whole(address: str, folder: Path) -> Path:
    """The folder for the files behind an address."""
    return folder / hashlib.sha256(address.encode()).hexdigest()


def _fetched(job: Job, address: str, folder: Path) -> VideoSection:
    """The files behind an address, in `folder`, which holds one source: consecutive clips of one video fetch it once.

    The folder also records a refusal of the source.
    """
    whole = _whole(address, folder)
    refused = whole.with_suffix(".json")
    if refused.exists():
        raise Refusal(*json.loads(refused.read_text(encoding="utf-8")))
    if not whole.exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _visit(job, address, folder, partial(fetch, folder=folder / "temporary"))
        except RateLimited:
            raise
        except Refusal as refusal:
            folder.mkdir(exist_ok=True)
            with write_atomically(refused) as temporary_path:
                temporary_path.write_text(json.dumps(refusal.args), encoding="utf-8")
            raise
        os.replace(folder / "temporary", whole)
    return VideoSection(sorted(whole.iterdir()))


def _visit(job: Job, address: str, folder: Path, fetching: Callable[..., Fetched]) -> Fetched:
    """Fetch an address, and record the result in the rate limiter."""
    check_address(address)
    visit = job.limiter.visit(address, job.hosts)
    try:
        fetched = fetching(address, megabytes=job.megabytes, seconds=job.seconds, visit=visit)
    except Refusal as refusal:
        if visit.is_ambiguous(refusal.reason):
            with contextlib.suppress(Refusal):
                _fetch_known_good(job, visit, folder)
        visit.record_failure(refusal.reason)
        raise
    except NoRanges:
        visit.record_failure("unsupported")
        raise
    visit.record_success(address)
    return fetched


def _fetch_known_good(job: Job, visit: Visit, folder: Path) -> None:
    """Fetch the start of the last video that a site gave, to check the site; raises Refusal as `fetch`."""
    known_good = job.limiter.known_good(visit.site)
    if known_good is None:
        raise Refusal("blocked", "the site has not given any video yet, so the cause is unknown")
    shutil.rmtree(folder, ignore_errors=True)
    fetch(known_good, folder / "try", megabytes=job.megabytes, seconds=job.seconds, visit=visit, only_start=True)
    visit.record_success(known_good)


def _check_site(job: Job, address: str, folder: Path, reason: str) -> None:
    """Raise Refusal as pending, for a doubted reason, unless the site still gives a video that it gave before."""
    visit = job.limiter.visit(address, job.hosts)
    if job.limiter.known_good(visit.site) is None:
        detail = f"{reason}, and the site has not given any video yet, so the cause is unknown"
        raise Refusal(DOUBTED[reason], detail)
    try:
        _fetch_known_good(job, visit, folder)
    except RateLimited:
        raise
    except Refusal as refusal:
        visit.record_failure(refusal.reason)
        detail = f"{reason}, and a video that the site gave before fails too: {refusal.detail}"
        raise Refusal(DOUBTED[reason], detail) from None


def _failure_row(failure: Failure, seconds: float) -> tuple[str, str, str]:
    if failure.hung:
        return "refused", "timeout", f"not finished within {seconds:g} s"
    if failure.out_of_memory:
        return "refused", "too-large", f"needs more than {MAX_MEMORY >> 20} MB of memory"
    return "refused", "unreadable", f"the process that read it crashed ({failure.ending})"


def _local_files(job: Job, rows: Iterable[ManifestRow]) -> list[Path]:
    """The files of the local rows that are below the manifest's folder."""
    folder = real_path(job.media)
    files = [real_path(job.media / row.source) for row in rows if row.is_local]
    return [file for file in files if file.is_relative_to(folder)]


def _local_file(job: Job, source: str) -> Path:
    """The file of a local row: a regular file below the manifest's folder after resolving links, not too large."""
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
        raise Refusal(
            "too-large",
            f"{status.st_size / 1e6:.1f} MB, expected at most {job.megabytes:g} MB (download.max_megabytes)",
        )
    return path


def _write_tar(path: Path, folder: Path, clip_ids: Iterable[str]) -> None:
    """Write the kept clips as a tar file whose bytes depend only on them: sorted, without times and owners."""
    with (
        write_atomically(path) as temporary_path,
        tarfile.open(temporary_path, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for clip_id in sorted(clip_ids):
            for suffix in ("json", "mp4"):
                name = f"{clip_id}.{suffix}"
                entry = tarfile.TarInfo(name)
                entry.size = (folder / name).stat().st_size
                with open(folder / name, "rb") as file:
                    tar.addfile(entry, file)
