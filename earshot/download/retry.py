"""Request refused clips again: their rows become pending, in the clips of the last run and in unfinished work.

The next run then requests them as it does all pending clips, also if this one is killed. Kept clips stay.
"""

import tarfile
from collections.abc import Collection
from pathlib import Path

from earshot.core.files import write_atomically
from earshot.corpus.ledger import LedgerRow, read_ledger, write_ledger
from earshot.download.clips import JOURNAL, Entry, Journal, read_journal

RETRIED = "unclear"  # the reason of a pending row that was refused before


def reopen(reasons: Collection[str], published: Path, unfinished: Path, out: Path) -> int:
    """Make the refused rows with one of these reasons pending; return their number.

    Args:
        reasons: reasons of refused rows.
        published: the clips of the last run, with their ledger.
        unfinished: the folder of the downloaded clips of an unfinished run, by shard.
        out: the output of the unfinished run: tar files and ledgers of its shards.

    Raises:
        EarshotError: a ledger is damaged.
    """
    reopened: set[str] = set()
    for path in sorted((published / "ledger").glob("*.csv")):
        reopened |= _reopen_ledger(path, reasons)
    for path in sorted(unfinished.glob(f"*/{JOURNAL}")):
        reopened |= _reopen_shard(path, out, reasons)
    return len(reopened)


def _reopen_shard(path: Path, out: Path, reasons: Collection[str]) -> set[str]:
    """Reopen the rows of an unfinished run's shard, given its journal; return their clips."""
    last = {entry.row.clip_id: entry for entry in read_journal(path)}
    refused = {clip_id for clip_id, entry in last.items() if _is_refused(entry.row, reasons)}
    if refused:
        tar = out / f"{path.parent.name}.tar"
        if tar.exists():  # a finished shard: the tar file alone holds its clips
            with tarfile.open(tar) as clips:
                clips.extractall(path.parent, filter="data")
        # The journal is last: if this is killed, its rows are still refused, and --retry finds them again.
        _reopen_ledger(out / "ledger" / f"{path.parent.name}.csv", reasons)
        with write_atomically(path) as temporary_path, Journal(temporary_path) as journal:
            for entry in last.values():
                journal.write(Entry(entry.at, _reopened(entry.row, reasons)))
    return refused


def _reopen_ledger(path: Path, reasons: Collection[str]) -> set[str]:
    rows = read_ledger(path) if path.exists() else []
    refused = {row.clip_id for row in rows if _is_refused(row, reasons)}
    if refused:
        write_ledger(path, [_reopened(row, reasons) for row in rows])
    return refused


def _is_refused(row: LedgerRow, reasons: Collection[str]) -> bool:
    return row.status == "refused" and row.reason in reasons


def _reopened(row: LedgerRow, reasons: Collection[str]) -> LedgerRow:
    if not _is_refused(row, reasons):
        return row
    return LedgerRow(
        row.clip_id, row.source, "pending", RETRIED, f"to be requested again; was {row.reason}: {row.detail}"
    )
