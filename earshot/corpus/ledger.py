"""The ledger: one row for every clip that a stage receives, so that every missing clip has a reason.

A ledger is a CSV file for each shard, with the columns of `LedgerRow`.
"""

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from earshot.core.csv_files import read_csv, write_csv
from earshot.core.errors import EarshotError
from earshot.core.files import run_again, write_atomically
from earshot.core.messages import for_output

# Faults of the media file; extract and download both check for these.
MEDIA_REASONS = ("unreadable", "no-video", "no-sound", "too-short", "timeout", "too-large", "unsupported")
# Faults of a clip that decodes, if the parameters refuse them; only extract checks for these.
QUALITY_REASONS = ("silent", "still", "clipped", "duplicate")
# Permanent refusals by the source.
SOURCE_REASONS = (
    "private",
    "removed",
    "geo-blocked",
    "age-restricted",
    "not-found",
    "forbidden",
    "no-media",
    "bad-cut",
)
# Temporary failures: the next run requests the clip again.
PENDING_REASONS = ("rate-limited", "blocked", "network", "unclear")
REFUSED_REASONS = MEDIA_REASONS + QUALITY_REASONS + SOURCE_REASONS
REASONS = REFUSED_REASONS + PENDING_REASONS

STATUSES = ("kept", "refused", "pending")
DETAIL_LENGTH = 200  # characters; a decoder's message may be a page long


class Refusal(Exception):
    """A clip that is refused, with a `reason` from `REASONS` and a `detail`, one line for a human.

    Raises ValueError for an unknown reason.
    """

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in REASONS:
            raise ValueError(f"ledger: a refusal with the unknown reason {reason!r}")
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class LedgerRow:
    """The outcome of one clip: kept, refused or pending, with a reason from `REASONS` unless it was kept.

    `source` is a path or an address; `detail` is one line for a human. Both are made printable, because a file name may
    hold any bytes, and lose passwords and tokens.

    Raises ValueError for a status or reason that is not on the lists.
    """

    clip_id: str
    source: str
    status: str
    reason: str = ""
    detail: str = ""

    def __post_init__(self) -> None:
        allowed = {"kept": ("",), "refused": REFUSED_REASONS, "pending": PENDING_REASONS}
        if self.status not in allowed:
            raise ValueError(f"ledger: clip {self.clip_id!r} has status {self.status!r}, not one of {STATUSES}")
        if self.reason not in allowed[self.status]:
            raise ValueError(f"ledger: clip {self.clip_id!r} is {self.status} with the unknown reason {self.reason!r}")
        object.__setattr__(self, "source", for_output(self.source))
        object.__setattr__(self, "detail", for_output(" ".join(self.detail.split()))[:DETAIL_LENGTH])


COLUMNS = tuple(field.name for field in fields(LedgerRow))


def write_ledger(path: Path, rows: Iterable[LedgerRow]) -> None:
    """Write the rows as CSV, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary_path, open(temporary_path, "w", newline="", encoding="utf-8") as file:
        write_csv(file, COLUMNS, map(astuple, rows))


def read_ledger(path: Path) -> list[LedgerRow]:
    """Read a ledger.

    Raises EarshotError if the columns, a status or a reason are invalid.
    """
    with open(path, newline="", encoding="utf-8") as file:
        columns = tuple(next(csv.reader(file), ()))
        if columns != COLUMNS:
            raise EarshotError(f"{path}: the columns are {columns}, expected {COLUMNS}; {run_again(path)}")
        try:
            return [LedgerRow(**row) for row in read_csv(file, COLUMNS)]
        except (TypeError, ValueError, AttributeError) as error:
            raise EarshotError(f"{path}: {error}; {run_again(path)}") from error


def count(rows: Iterable[LedgerRow], *, total: str = "clips_in") -> dict[str, int]:
    """Counts under the names of the metrics: `total`, clips_kept, clips_pending, refused_<reason>.

    `total` and clips_kept are always present, the others only if they occur. The counts of several shards add up.
    """
    rows = list(rows)
    outcomes = Counter(outcome(row) for row in rows)
    named = {name if name.startswith("refused_") else f"clips_{name}": number for name, number in outcomes.items()}
    return {total: len(rows), "clips_kept": 0, **dict(sorted(named.items()))}


def outcome(row: LedgerRow) -> str:
    """The outcome of a clip: kept, pending, or refused_<reason>."""
    return f"refused_{row.reason}" if row.status == "refused" else row.status
