"""From a manifest to shards of clips: who is asked for, what became of each, and the tar files.

A clip is written beside a journal of outcomes as soon as it is there, so that after a kill, or while some are pending,
nothing is asked for twice. A shard becomes a tar file (the WebDataset convention) when all its clips are settled.

What may pass is tried again in the same run. "Forbidden" is believed only when the site forbids a video a second time
while it goes on giving, before and after, one that it has given: most often a site means that it has had enough.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from earshot.core.files import shard_name, write_atomically
from earshot.core.subprocess_pool import Failure, Limits, guarded_map
from earshot.corpus.ledger import PENDING_REASONS, LedgerRow, Refusal, read_ledger, write_ledger
from earshot.corpus.manifest import ManifestRow
from earshot.corpus.requested import read_requested
from earshot.download.cutting import cut
from earshot.download.earlier import Earlier, count_outcomes
from earshot.download.partial_download import NoRanges, Section
from earshot.download.rate_limit import FAILING, RateLimited, RateLimiter, Visit, clock, site_of
from earshot.download.yt_dlp_client import check_address, fetch, fetch_section

Fetched = TypeVar("Fetched")
JOURNAL = "journal.jsonl"
FETCHED = "fetched"  # the folder of the address last fetched, beside the clips
TRIES = 3  # that a clip has in one run
LONG_AGO = 0.0  # when what is taken over from an earlier run was asked for


@dataclass(frozen=True)
class Job:
    """How the clips of a manifest are had, and where they go.

    `media` is the folder that local paths start from, `asked` and `clips` hold what is asked for and what has come,
    shard by shard, `out` is the output of the stage. `seconds` and `megabytes` limit the work on one clip, `pace` the
    requests to each site; `fetch` says whether the `whole` of a source comes or only the `section` with the clip.
    `earlier` is what an earlier run has fetched.
    """

    media: Path
    asked: Path
    clips: Path
    out: Path
    seconds: float
    megabytes: float
    fetch: str
    accept_pending: bool
    limiter: RateLimiter
    earlier: Earlier | None = None


def download_shard(job: Job, number: int) -> dict[str, int]:
    """Get what is still missing of one shard, write its ledger, and its tar file once no row is pending.

    Returns counts under the names of the metrics, and pending_<reason>.
    """
    name = shard_name(number)
    ledger, tar, folder = job.out / "ledger" / f"{name}.csv", job.out / f"{name}.tar", job.clips / name
    rows = read_ledger(ledger) if ledger.exists() else []
    requested = job.asked / f"{name}.jsonl"
    asked = read_requested(requested)
    # Another version of this code may have dealt the clips to other shards.
    if _pending(rows) or [row.clip_id for row in rows] != [row.clip_id for row in asked]:
        linked = job.earlier.link_shard(number, requested, tar) if job.earlier else None
        if linked:
            _note_all(linked, folder)
        rows = linked or _get_all(job, asked, folder)
        if not linked and (job.accept_pending or not _pending(rows)):
            _write_tar(tar, folder, [row.clip_id for row in rows if row.status == "kept"])
        write_ledger(ledger, rows)
    if not _pending(rows):
        for path in folder.iterdir() if folder.exists() else ():
            if path.name != JOURNAL:
                path.unlink()  # it is in the tar file
    return count_outcomes(rows)


def _note_all(rows: list[LedgerRow], folder: Path) -> None:
    """Note the rows of a whole shard, for those who ask how far the work is."""
    folder.mkdir(parents=True, exist_ok=True)
    with Journal(folder / JOURNAL) as journal:
        for row in rows:
            journal.write(Entry(LONG_AGO, row))


def _pending(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.status == "pending"]


class Entry(NamedTuple):
    """A line of a journal: when, in seconds of Unix time, and what."""

    at: float
    row: LedgerRow


class Journal:
    """The outcomes of a shard's clips, written as they come; the last one of a clip counts."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> "Journal":
        self._file = open(self.path, "a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, asked: ManifestRow, status: str, reason: str, detail: str, at: float | None = None) -> LedgerRow:
        """Note what became of a clip, now or when it was last asked for; return its row."""
        row = LedgerRow(asked.clip_id, asked.source, status, reason, detail)
        self.write(Entry(round(time.time(), 1) if at is None else at, row))
        return row

    def write(self, entry: Entry) -> None:
        """Write a line; a kill afterwards does not lose it."""
        self._file.write("\n" + json.dumps({"at": entry.at, **asdict(entry.row)}))
        self._file.flush()


def read_journal(path: Path) -> Iterator[Entry]:
    """The outcomes so far, in order; a line that a kill has cut off is as good as not written."""
    for line in path.read_text(encoding="utf-8").split("\n") if path.exists() else ():
        try:
            values = json.loads(line)
            yield Entry(values.pop("at"), LedgerRow(**values))
        except ValueError:
            continue


def _get_all(job: Job, asked: list[ManifestRow], folder: Path) -> list[LedgerRow]:
    """A ledger row for every row asked for: from the journal what is settled, the others by asking now.

    What may pass is asked for again after the others, unless its site is held for longer than is waited for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = _last_entries(folder / JOURNAL)
    for refused in (folder / FETCHED).glob("*.json"):
        refused.unlink()  # it may have passed
    with Journal(folder / JOURNAL) as journal:
        new = [row for row in asked if row.clip_id not in last]
        for row in job.earlier.take(new, folder) if job.earlier else ():
            last[row.clip_id] = Entry(LONG_AGO, row)
            journal.write(last[row.clip_id])
        asking = _Asking(job, folder, journal, last)
        for tries in range(TRIES):
            missing = asking.missing(asked)
            if not missing:
                break
            if tries and any(asking.outcomes[row.clip_id].reason == "network" for row in missing):
                time.sleep(job.limiter.backoff * FAILING["network"].backoff * 2 ** (tries - 1))
            asking.ask(missing)
            shutil.rmtree(folder / FETCHED, ignore_errors=True)
    return [asking.outcomes[row.clip_id] for row in asked]


def _last_entries(path: Path) -> dict[str, Entry]:
    """The last entry of each clip in a journal; the file is left with these alone."""
    entries = {entry.row.clip_id: entry for entry in read_journal(path)}
    with write_atomically(path) as temporary_path, Journal(temporary_path) as journal:
        for entry in entries.values():
            journal.write(entry)
    return entries


class _Asking:
    """One run's work on a shard: `outcomes` by clip, from the last entries of its journal on."""

    def __init__(self, job: Job, folder: Path, journal: Journal, last: dict[str, Entry]) -> None:
        self.job, self.folder, self.journal = job, folder, journal
        self.outcomes = {clip_id: entry.row for clip_id, entry in last.items() if self._is_settled(entry.row)}
        self._requested_at = {clip_id: entry.at for clip_id, entry in last.items()}
        self._doubted: set[str] = set()  # forbidden, which may be a block

    def _is_settled(self, row: LedgerRow) -> bool:
        """Whether a row needs no asking: refused, or kept and its clip is there."""
        return row.status == "refused" or (row.status == "kept" and (self.folder / f"{row.clip_id}.mp4").exists())

    def missing(self, asked: list[ManifestRow]) -> list[ManifestRow]:
        """The rows that are not settled and whose sites may be asked; those of other sites are noted as pending.

        Those that were asked longest ago come first: one that always fails, and so holds up its site, starves no other.
        """
        held = {name: host for name, host in self.job.limiter.held().items() if self.job.limiter.too_long(host)}
        missing = []
        for row in sorted(asked, key=lambda row: self._requested_at.get(row.clip_id, 0.0)):
            outcome = self.outcomes.get(row.clip_id)
            if outcome is None or outcome.status == "pending":
                host = None if row.is_local else held.get(_site(row.source))
                if host:
                    self._note_held(row, host.reason, f"{host.host} is not asked again before {clock(host.until)}")
                else:
                    missing.append(row)
        return missing

    def ask(self, rows: list[ManifestRow]) -> None:
        """Ask for each row once."""
        work = partial(_get, self.job, self.folder)
        items = [(row, row.clip_id in self._doubted) for row in rows]
        for (row, sure), result in guarded_map(work, items, Limits(self.job.seconds)):
            status, reason, detail = _lost(result, self.job.seconds) if isinstance(result, Failure) else result
            if status == "held":
                self._note_held(row, reason, detail)
                continue
            if (status, reason) == ("refused", "forbidden") and not row.is_local and not sure:
                self._doubted.add(row.clip_id)
                status, reason, detail = "pending", "blocked", f"{detail}; a block of the site, or this video alone?"
            self.outcomes[row.clip_id] = self.journal.add(row, status, reason, detail)

    def _note_held(self, row: ManifestRow, reason: str, detail: str) -> None:
        if row.clip_id not in self.outcomes:  # what was asked in this run has its own reason
            at = self._requested_at.get(row.clip_id, 0.0)
            self.outcomes[row.clip_id] = self.journal.add(row, "pending", reason, detail, at=at)


def _site(address: str) -> str:
    try:
        return site_of(address)
    except ValueError:
        return ""


def _get(job: Job, folder: Path, item: tuple[ManifestRow, bool]) -> tuple[str, str, str]:
    """Get one clip into `folder`, with the json beside it that goes into the tar.

    With the row comes whether it was forbidden before. Returns status, reason and detail for the ledger; the status
    is held where it was not asked.
    """
    row, doubted = item
    try:
        source = _source(job, row, folder / FETCHED, doubted)
        target = folder / f"{row.clip_id}.mp4"
        seconds = cut(source.paths, row.start, row.end, target, origin=source.origin, length=source.seconds)
    except RateLimited as held:
        return "held", held.reason, held.detail
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
    with write_atomically(folder / f"{row.clip_id}.json") as temporary_path:
        temporary_path.write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    return "kept", "", f"{seconds:.2f} s"


def _source(job: Job, row: ManifestRow, folder: Path, doubted: bool) -> Section:
    """The files to cut a clip from; where it was forbidden before, with a look at what else the site gives."""
    if row.is_local:
        return Section([_local_file(job, row.source)])
    if doubted:
        _check_site(job, row.source, folder)
    try:
        return _fetched_section(job, row, folder) if job.fetch == "section" else _fetched(job, row.source, folder)
    except Refusal as refusal:
        if doubted and refusal.reason == "forbidden":
            _check_site(job, row.source, folder)  # a block may have begun just now
        raise


def _fetched_section(job: Job, row: ManifestRow, folder: Path) -> Section:
    """The part of a source that one clip is cut from, or the whole where the server has no parts to give."""
    if not _whole(row.source, folder).exists():
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(NoRanges):
            fetching = partial(fetch_section, folder=folder / "temporary", start=row.start, end=row.end)
            return _visit(job, row.source, folder, fetching)
    return _fetched(job, row.source, folder)


def _whole(address: str, folder: Path) -> Path:
    """The folder for the files behind an address."""
    return folder / hashlib.sha256(address.encode()).hexdigest()


def _fetched(job: Job, address: str, folder: Path) -> Section:
    """The files behind an address, in `folder`, which holds one source: clips of one video in a row fetch it once.

    A source that is refused is remembered there as well.
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
    return Section(sorted(whole.iterdir()))


def _visit(job: Job, address: str, folder: Path, fetching: Callable[..., Fetched]) -> Fetched:
    """Fetch what is behind an address, and tell the pace of the site how it went."""
    check_address(address)
    visit = job.limiter.visit(address)
    try:
        fetched = fetching(address, megabytes=job.megabytes, seconds=job.seconds, visit=visit)
    except Refusal as refusal:
        if visit.suspects(refusal.reason):
            with contextlib.suppress(Refusal):
                _try_given(job, visit, folder)
        visit.failed(refusal.reason)
        raise
    except NoRanges:
        visit.failed("unsupported")
        raise
    visit.record_success(address)
    return fetched


def _try_given(job: Job, visit: Visit, folder: Path) -> None:
    """Fetch the beginning of the video that a site gave last, to see whether it is well; raise Refusal as `fetch`."""
    given = job.limiter.given(visit.site)
    if given is None:
        raise Refusal("blocked", "the site has given no video yet by which to tell why")
    shutil.rmtree(folder, ignore_errors=True)
    fetch(given, folder / "try", megabytes=job.megabytes, seconds=job.seconds, visit=visit, only_try=True)
    visit.record_success(given)


def _check_site(job: Job, address: str, folder: Path) -> None:
    """Raise Refusal as blocked unless the site gives what it has given before, and so blocks nobody."""
    visit = job.limiter.visit(address)
    if job.limiter.given(visit.site) is None:
        raise Refusal("blocked", "forbidden, and the site has given no video yet by which to tell why")
    try:
        _try_given(job, visit, folder)
    except RateLimited:
        raise
    except Refusal as refusal:
        visit.failed(refusal.reason)
        raise Refusal("blocked", f"forbidden, as is now what the site has given before: {refusal.detail}") from None


def _lost(lost: Failure, seconds: float) -> tuple[str, str, str]:
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
