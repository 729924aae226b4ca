"""The rate of requests to each site, shared by all workers and machines with the same scratch folder.

Each request to a host requires a permit: for a page, an API, a redirect or a part of a file. The time between two
permits of a host is at least an hour divided by the budget, so that no hour exceeds the budget, plus a random fifth at
most. If a site limits or blocks us, it gets no request before the time that it names, or else during a back-off that
doubles with every consecutive failure; then a single visit tests it for all workers. One SQLite file stores the state
of all hosts, so that it survives kills and runs; the machines require synchronized clocks and shared file locks.
"""

import contextlib
import email.utils
import errno
import os
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import pause
from earshot.corpus.ledger import Refusal
from earshot.pipeline.settings import settings

JITTER = 0.2  # random part of the time between two requests
MAX_SLEEP_SECONDS = 5.0  # s; a waiting visit checks this often whether the site accepts requests again
MAX_NAMED_SECONDS = 86400.0  # s; a longer Retry-After is shortened to this
MAX_BACKOFF = 60  # times the first back-off: an hour after a minute
LOCK_SECONDS = 60.0  # for other processes to release the file
MAX_FAILURES = 6  # consecutive failures after which a site that has never given a video is reported


@dataclass(frozen=True)
class FailureKind:
    """A kind of failure: its first back-off, in multiples of `backoff`, and how many in a row are tolerated.

    `doubted` is for a permanent reason: the reason of the pending clip until the site has proved that it gives others.
    """

    backoff: float
    tolerated: int
    doubted: str = ""


# A failed video tells little about its site; a single bot check or 429 is conclusive.
FAILURE_KINDS = {
    "network": FailureKind(0.1, 4),
    "rate-limited": FailureKind(1.0, 0),
    "blocked": FailureKind(10.0, 0),
    "unclear": FailureKind(10.0, 4),
    # A single video may be forbidden permanently, or its page empty; several in a row are the site's doing.
    "forbidden": FailureKind(10.0, 2, "blocked"),
    "no-media": FailureKind(10.0, 4, "unclear"),
}

TABLE = """CREATE TABLE IF NOT EXISTS hosts (
    host TEXT PRIMARY KEY,
    next REAL NOT NULL DEFAULT 0,       -- no request before this time
    until REAL NOT NULL DEFAULT 0,      -- limited: no request before this time; 0 if not limited
    since REAL NOT NULL DEFAULT 0,      -- when the back-off was decided
    reason TEXT NOT NULL DEFAULT '',    -- of the limit
    failures INTEGER NOT NULL DEFAULT 0,  -- in a row
    trying TEXT NOT NULL DEFAULT '',    -- the single visit that tests the site after a back-off
    given TEXT NOT NULL DEFAULT ''      -- the last address that it gave
)"""


@dataclass
class Host:
    """The state of one host: a row of the table, which describes the columns."""

    host: str
    next: float = 0.0
    until: float = 0.0
    since: float = 0.0
    reason: str = ""
    failures: int = 0
    trying: str = ""
    given: str = ""


class RateLimited(Refusal):
    """A host that gets no request now, because of an earlier response."""


@dataclass(frozen=True)
class RateLimiter:
    """The rate limits, and the file that shares their state.

    `requests_per_hour` is the budget of each host (0: no limit), `backoff` the first pause (s) after a limit that names
    no time, `patience` the time (s) to wait for a limited site before its clips stay pending. `now` and `sleep` are the
    clock, which all users of the file share.
    """

    file: Path
    requests_per_hour: float
    backoff: float
    patience: float
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = pause

    @classmethod
    def shared(cls, folder: Path) -> "RateLimiter":
        """The rate limiter of all runs with this scratch folder, from the settings."""
        own = settings()
        return cls(folder / "pace" / "pace.sqlite", own.requests_per_hour, own.backoff, own.patience)

    def check(self) -> None:
        """Raise EarshotError if the file is damaged, as after a power cut."""
        try:
            with self._changing("example.org"):
                pass
        except sqlite3.Error as error:
            raise EarshotError(
                f"{self.file}: {error}; it stores when each site accepts the next request: wait an hour and remove it"
            ) from None

    def visit(self, address: str, hosts: Collection[str] = ()) -> "Visit":
        """A visit to the site of an address, to fetch one video; `hosts` are those of the manifest."""
        return Visit(self, site_of(address), hosts)

    def limited(self) -> dict[str, Host]:
        """The hosts that get no requests now, by name."""
        return self._where("until > ? AND trying = ''", self.now())

    def never_succeeded(self) -> dict[str, Host]:
        """The sites that failed many times and have never given a video, by name."""
        return self._where("given = '' AND failures >= ?", MAX_FAILURES)

    def exceeds_patience(self, host: Host) -> bool:
        """Whether a host is limited for longer than the patience."""
        return host.until - self.now() > self.patience

    def known_good(self, site: str) -> str | None:
        """The last address that a site gave, if any."""
        with self._changing(site) as host:
            return host.given or None

    def _where(self, condition: str, value: float) -> dict[str, Host]:
        """The hosts that satisfy a condition with one value, by name."""
        if not self.file.exists():
            return {}
        with self._connected() as table:
            rows = table.execute(f"SELECT * FROM hosts WHERE {condition}", [value]).fetchall()
        return {row[0]: Host(*row) for row in rows}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        if self.file.is_symlink():
            raise EarshotError(f"{self.file}: a link, expected a file; remove it")
        self.file.touch(0o600)  # it holds addresses, perhaps with passwords
        try:
            with contextlib.closing(sqlite3.connect(self.file, timeout=LOCK_SECONDS, isolation_level=None)) as table:
                # A killed process does no damage; only a power cut could, and flushing takes 30 ms for each request.
                table.execute("PRAGMA synchronous=OFF")
                table.execute(TABLE)
                yield table
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from None
            raise

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Host]:
        """The state of a host, locked for reading and changing."""
        with self._connected() as table:
            table.execute("BEGIN IMMEDIATE")
            row = table.execute("SELECT * FROM hosts WHERE host = ?", [name]).fetchone()
            host = Host(*row) if row else Host(name)
            yield host
            values = list(vars(host).values())
            table.execute(f"REPLACE INTO hosts VALUES ({', '.join('?' * len(values))})", values)
            table.execute("COMMIT")


class Visit:
    """One attempt to fetch one video: it obtains permits, records responses, and records the result.

    The site is the host of the address; its media may be on other hosts, each with its own budget. `listed` are the
    hosts that the manifest lists, this one included. `trouble` is the reason of the last unsuccessful response, if any.
    """

    def __init__(self, limiter: RateLimiter, site: str, hosts: Collection[str] = ()) -> None:
        self.limiter, self.site = limiter, site
        self.listed = frozenset({site, *hosts})
        self.trouble: str | None = None
        self._name = uuid.uuid4().hex
        self._began = 0.0  # time of the first request
        self._named = 0.0  # end of the time that a server named in Retry-After
        self._was_limited = False

    def permit(self, host: str) -> None:
        """Wait for the permit of a request to `host`.

        Raises RateLimited if that would take longer than the patience.
        """
        while (seconds := self._wait(host)) > 0:
            self.limiter.sleep(min(seconds, MAX_SLEEP_SECONDS))

    def record_response(self, host: str, status: int, retry_after: str | None) -> None:
        """Record a response of `host`: its HTTP status, and its Retry-After header if any."""
        if status < 400:
            return
        limits = {429: "rate-limited", 403: "forbidden", 407: "network", 408: "network"}
        self.trouble = limits.get(status, "network" if status >= 500 else self.trouble)
        named = named_time(retry_after, self.limiter.now())
        if named is None:
            return
        self._named = max(self._named, named)
        with self.limiter._changing(host) as known:
            known.until, known.trying = max(known.until, named), ""
            known.reason = "network" if status >= 500 else "rate-limited"

    def record_success(self, address: str) -> None:
        """Record that the site gave the video at `address`."""
        with self.limiter._changing(self.site) as host:
            host.given = address
            if self._began < host.since and host.trying != self._name:
                return  # it failed since then
            if host.trying == self._name or host.until <= self.limiter.now():
                host.until = 0.0
            host.failures, host.trying = 0, ""

    def record_failure(self, reason: str) -> None:
        """Record a visit without a video. Reasons that do not concern the site change nothing."""
        kind = FAILURE_KINDS.get(reason)
        with self.limiter._changing(self.site) as host:
            tested = host.trying == self._name
            if tested:
                host.until, host.trying = self.limiter.now(), ""
            if self._was_limited or not kind or (self._began < host.since and not tested):
                return  # nothing new: no request was made, or others have recorded this failure
            host.failures += 1
            rounds = host.failures - kind.tolerated - (1 if self._named else 0)  # the first time counts as named
            wait = min(2.0 ** (rounds - 1) * kind.backoff, MAX_BACKOFF) * self.limiter.backoff if rounds > 0 else 0
            until = max(self._named, self.limiter.now() + wait * random.uniform(1, 1 + JITTER))
            if wait or self._named:
                host.until, host.since = max(host.until, until), self.limiter.now()
                host.reason = kind.doubted or reason

    def is_ambiguous(self, reason: str) -> bool:
        """Whether one more failure for this reason would limit the site, although only its videos may be at fault."""
        if self._was_limited or self._named or not (kind := FAILURE_KINDS.get(reason)) or not kind.tolerated:
            return False
        with self.limiter._changing(self.site) as host:
            return bool(host.given) and host.failures >= kind.tolerated

    def _wait(self, name: str) -> float:
        """Seconds until `name` accepts a request; at 0 the permit is given."""
        with self.limiter._changing(name) as host:
            now = self.limiter.now()
            limit = 0.0 if host.trying == self._name else host.until - now
            if limit > self.limiter.patience:
                self._was_limited = True
                raise RateLimited(host.reason, f"no request to {name} before {clock(host.until)}")
            wait = max(0.0, limit, host.next - now)
            if not wait:
                self._take(host, now)
            return wait

    def _take(self, host: Host, now: float) -> None:
        self._began = self._began or now
        if self.limiter.requests_per_hour:
            host.next = now + 3600 / self.limiter.requests_per_hour * random.uniform(1, 1 + JITTER)
        if host.until and host.failures and host.host == self.site:
            # The back-off is over. This visit tests the site; the others wait, but not for ever: it may be killed.
            host.trying, host.until = self._name, now + self.limiter.backoff


def site_of(address: str) -> str:
    """The host of an address, with its port if given, in lower case.

    Raises ValueError for an address without a host.
    """
    parts = urlsplit(address)
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise ValueError(f"{address!r} names no host")
    return f"{host}:{parts.port}" if parts.port else host


def named_time(retry_after: str | None, now: float) -> float | None:
    """The end of a Retry-After header (seconds or a date), at most a day ahead; None if it names no future time."""
    text = (retry_after or "").strip()
    try:
        until = now + int(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(until, now + MAX_NAMED_SECONDS) if until > now else None


def clock(when: float) -> str:
    """A local date and time for users, rounded up to a minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when + 59))
