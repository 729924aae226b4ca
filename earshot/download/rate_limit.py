"""How fast a site is asked, and when not at all: shared by every worker and machine with the same scratch folder.

Each request to a host needs a permit, whatever it is for: a page, an API, a redirect, a part of a file. Two permits of
a host are never nearer than an hour divided by the budget, so that no hour holds more than the budget, and up to a
fifth further apart, by chance. A site that limits or blocks is not asked again before the time that it names, or else
before a back-off that doubles with every failure in a row; then a single visit tries it for all. What is known of the
hosts is one SQLite file, so that it outlives kills and runs; machines need clocks that agree and locks that hold across
them.
"""

import contextlib
import email.utils
import errno
import os
import random
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import pause
from earshot.corpus.ledger import Refusal
from earshot.pipeline.settings import settings

JITTER = 0.2  # of the time between two requests
LONGEST_SLEEP = 5.0  # seconds after which one that waits looks again whether the site has been freed
LONGEST_NAMED = 86400.0  # seconds; no site is believed that asks for longer
LONGEST_BACKOFF = 60  # times the first back-off of a limit: an hour after a minute
LOCK_SECONDS = 60.0  # that the file may be held by others
MAX_FAILURES = 6  # in a row, of a site that has never given anything, after which it is told of


@dataclass(frozen=True)
class Failing:
    """A way to fail: the first back-off, in those of a limit, and how many failures in a row are still no pattern."""

    backoff: float
    spared: int


# One video in error says little of its site; one bot check or one 429 says all of it.
FAILING = {
    "network": Failing(0.1, 4),
    "rate-limited": Failing(1.0, 0),
    "blocked": Failing(10.0, 0),
    "forbidden": Failing(10.0, 2),  # one video may be forbidden for good; several in a row are a block
}

TABLE = """CREATE TABLE IF NOT EXISTS hosts (
    host TEXT PRIMARY KEY,
    next REAL NOT NULL DEFAULT 0,       -- no request before this time
    until REAL NOT NULL DEFAULT 0,      -- held: no request before this time; 0 where it is not
    since REAL NOT NULL DEFAULT 0,      -- when the back-off was decided
    reason TEXT NOT NULL DEFAULT '',    -- of holding it
    failures INTEGER NOT NULL DEFAULT 0,  -- in a row
    trying TEXT NOT NULL DEFAULT '',    -- the visit that tries, alone, whether it gives again
    given TEXT NOT NULL DEFAULT ''      -- the address that it gave last
)"""


@dataclass
class Host:
    """What is known of one host: a row of the table, whose columns are described there."""

    host: str
    next: float = 0.0
    until: float = 0.0
    since: float = 0.0
    reason: str = ""
    failures: int = 0
    trying: str = ""
    given: str = ""


class RateLimited(Refusal):
    """A host that is not asked now, for the reason of an earlier answer."""


@dataclass(frozen=True)
class RateLimiter:
    """The rules, and the file where everybody keeps to them.

    `requests_per_hour` is the budget of each host (0: no limit), `backoff` the seconds not to ask after a first limit
    that names no time, `patience` the seconds that are waited for a held site before its clips are left pending. `now`
    and `sleep` are the clock, which all who share the file share.
    """

    file: Path
    requests_per_hour: float
    backoff: float
    patience: float
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = pause

    @classmethod
    def shared(cls, folder: Path) -> "RateLimiter":
        """The pace of all runs with this scratch folder, as the settings have it."""
        now = settings()
        return cls(folder / "pace.sqlite", now.requests_per_hour, now.backoff, now.patience)

    def check(self) -> None:
        """Raise EarshotError where the file is not one of ours, as after a power cut."""
        try:
            with self._changing("example.org"):
                pass
        except sqlite3.Error as error:
            raise EarshotError(
                f"{self.file}: {error}; it holds when each site may be asked next: wait for an hour and remove it"
            ) from None

    def visit(self, address: str) -> "Visit":
        """A visit to the site of an address, to fetch one video."""
        return Visit(self, site_of(address))

    def held(self) -> dict[str, Host]:
        """The hosts that are not to be asked now, by name."""
        return self._where("until > ? AND trying = ''", self.now())

    def never_succeeded(self) -> dict[str, Host]:
        """The sites that were tried many times and have never given anything, by name."""
        return self._where("given = '' AND failures >= ?", MAX_FAILURES)

    def too_long(self, host: Host) -> bool:
        """Whether a host is held for longer than is waited for."""
        return host.until - self.now() > self.patience

    def given(self, site: str) -> str | None:
        """The address that a site gave last, if it gave any."""
        with self._changing(site) as host:
            return host.given or None

    def _where(self, condition: str, value: float) -> dict[str, Host]:
        """The hosts of which a condition with one value holds, by name."""
        if not self.file.exists():
            return {}
        with self._connected() as table:
            rows = table.execute(f"SELECT * FROM hosts WHERE {condition}", [value]).fetchall()
        return {row[0]: Host(*row) for row in rows}

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(sqlite3.connect(self.file, LOCK_SECONDS, isolation_level=None)) as table:
                # A killed process harms nothing; only a power cut could, and flushing would take 30 ms a request.
                table.execute("PRAGMA synchronous=OFF")
                table.execute(TABLE)
                yield table
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from None
            raise

    @contextlib.contextmanager
    def _changing(self, name: str) -> Iterator[Host]:
        """What is known of a host, to look at and to change, while nobody else can."""
        with self._connected() as table:
            table.execute("BEGIN IMMEDIATE")
            row = table.execute("SELECT * FROM hosts WHERE host = ?", [name]).fetchone()
            host = Host(*row) if row else Host(name)
            yield host
            values = list(vars(host).values())
            table.execute(f"REPLACE INTO hosts VALUES ({', '.join('?' * len(values))})", values)
            table.execute("COMMIT")


class Visit:
    """One try to fetch one video: asks for permits, heeds what servers answer, and tells how it ended.

    The site is the host of the address; its media may lie on other hosts, each with a budget of its own.
    `trouble` is the reason of the last answer that was no success, if any.
    """

    def __init__(self, limiter: RateLimiter, site: str) -> None:
        self.limiter, self.site = limiter, site
        self.trouble: str | None = None
        self._name = uuid.uuid4().hex
        self._began = 0.0  # when the first request left
        self._named = 0.0  # until when a server wants no request, by its own words
        self._held = False

    def permit(self, host: str) -> None:
        """Wait until a request to `host` may leave.

        Raises Held where that would take longer than the patience.
        """
        while (seconds := self._wait(host)) > 0:
            self.limiter.sleep(min(seconds, LONGEST_SLEEP))

    def record_response(self, host: str, status: int, retry_after: str | None) -> None:
        """Take note of an answer of `host`: its HTTP status, and its Retry-After header where it has one."""
        if status < 400:
            return
        limits = {429: "rate-limited", 403: "forbidden", 408: "network"}
        self.trouble = limits.get(status, "network" if status >= 500 else self.trouble)
        named = named_time(retry_after, self.limiter.now())
        if named is None:
            return
        self._named = max(self._named, named)
        with self.limiter._changing(host) as known:
            known.until, known.trying = max(known.until, named), ""
            known.reason = "network" if status >= 500 else "rate-limited"

    def record_success(self, address: str) -> None:
        """The site gave the video behind `address`: it is well."""
        with self.limiter._changing(self.site) as host:
            host.given = address
            if self._began < host.since and host.trying != self._name:
                return  # it went wrong since
            if host.trying == self._name or host.until <= self.limiter.now():
                host.until = 0.0
            host.failures, host.trying = 0, ""

    def failed(self, reason: str) -> None:
        """The visit ended without a video. Reasons that say nothing of the site's health leave it as it was."""
        failing = FAILING.get(reason)
        with self.limiter._changing(self.site) as host:
            tried = host.trying == self._name
            if tried:
                host.until, host.trying = self.limiter.now(), ""
            if self._held or not failing or (self._began < host.since and not tried):
                return  # nothing new: it was not asked, or what others have seen already
            host.failures += 1
            rounds = host.failures - failing.spared - (1 if self._named else 0)  # the first time it is believed
            wait = (
                min(2.0 ** (rounds - 1) * failing.backoff, LONGEST_BACKOFF) * self.limiter.backoff if rounds > 0 else 0
            )
            until = max(self._named, self.limiter.now() + wait * random.uniform(1, 1 + JITTER))
            if wait or self._named:
                host.until, host.since = max(host.until, until), self.limiter.now()
                host.reason = "blocked" if reason == "forbidden" else reason

    def suspects(self, reason: str) -> bool:
        """Whether with one more failure for this reason the site would be held, though it may be its videos alone."""
        if self._held or self._named or not (failing := FAILING.get(reason)) or not failing.spared:
            return False
        with self.limiter._changing(self.site) as host:
            return bool(host.given) and host.failures >= failing.spared

    def _wait(self, name: str) -> float:
        """Seconds until `name` may be asked; where it is 0, the permit is given."""
        with self.limiter._changing(name) as host:
            now = self.limiter.now()
            held = 0.0 if host.trying == self._name else host.until - now
            if held > self.limiter.patience:
                self._held = True
                raise RateLimited(host.reason, f"{name} is not asked again before {clock(host.until)}")
            wait = max(0.0, held, host.next - now)
            if not wait:
                self._take(host, now)
            return wait

    def _take(self, host: Host, now: float) -> None:
        self._began = self._began or now
        if self.limiter.requests_per_hour:
            host.next = now + 3600 / self.limiter.requests_per_hour * random.uniform(1, 1 + JITTER)
        if host.until and host.failures and host.host == self.site:
            # The back-off is over. This visit tries for all, who wait for it, though not for ever: it may be killed.
            host.trying, host.until = self._name, now + self.limiter.backoff


def site_of(address: str) -> str:
    """The host of an address, with its port where it names one, in lower case.

    Raises ValueError for an address that has none.
    """
    parts = urlsplit(address)
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise ValueError(f"{address!r} names no host")
    return f"{host}:{parts.port}" if parts.port else host


def named_time(retry_after: str | None, now: float) -> float | None:
    """When a Retry-After header, in seconds or as a date, ends; None where it names no time to come, at most a day."""
    text = (retry_after or "").strip()
    try:
        until = now + int(text) if text.isdigit() else email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(until, now + LONGEST_NAMED) if until > now else None


def clock(when: float) -> str:
    """A time as users read it, with its date, on this machine's clock; rounded up to a minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(when + 59))
