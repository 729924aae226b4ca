"""A budget that is never exceeded, waits that are obeyed, and a site that gets no requests when it limits us."""

import email.utils
import itertools
import math
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from media_server import MediaServer, serve, status

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import Failure, Limits, guarded_map, pause
from earshot.corpus.ledger import Refusal
from earshot.download.rate_limit import MAX_FAILURES, MAX_NAMED_SECONDS, RateLimited, RateLimiter, named_time, site_of
from earshot.download.yt_dlp_client import check_js_runtime, fetch
from earshot.pipeline.settings import settings

ADDRESS = "http://site/a.mp4"


def limiter_in(folder: Path, **changes) -> RateLimiter:
    values = {"file": folder / "pace.sqlite", "requests_per_hour": 0.0, "backoff": 10.0, "patience": 0.5} | changes
    return RateLimiter(**values)


class Clock:
    """A clock that advances only during sleep."""

    def __init__(self) -> None:
        self.time, self.sleeps = 1_700_000_000.0, []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def by_clock(clock, tmp_path):
    """A rate limiter with the clock of the test."""
    return lambda **changes: limiter_in(tmp_path, now=clock.now, sleep=clock.sleep, **changes)


def _request_repeatedly(folder: Path, requests: float) -> None:
    read = []

    def now() -> float:
        read.append(time.time())
        return read[-1]

    limiter = limiter_in(folder, requests_per_hour=3600 * 50, now=now)
    while requests > 0:
        limiter.visit(ADDRESS).permit("site")
        requests -= 1
        with open(folder / "log", "a") as log:
            log.write(f"{read[-1]!r}\n")  # when the permit was given


def test_the_budget_is_shared_by_processes_of_which_some_are_killed(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_request_repeatedly, args=(tmp_path, n)) for n in (math.inf, math.inf, 20, 20)]
    for worker in workers:
        worker.start()
    for worker in workers[:2]:
        time.sleep(0.2)
        os.kill(worker.pid, signal.SIGKILL)
    for worker in workers:
        worker.join()  # a killed worker does not block the others
    times = sorted(float(line) for line in (tmp_path / "log").read_text().splitlines())
    assert len(times) >= 40
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 1 / 50 - 1e-6


def test_hosts_have_budgets_of_their_own(by_clock, clock):
    visit = by_clock(requests_per_hour=60).visit(ADDRESS)
    for host in ("site", "media.site", "other:8080"):
        visit.permit(host)
    assert not clock.sleeps
    by_clock(requests_per_hour=60).visit(ADDRESS).permit("site")
    assert 60 <= sum(clock.sleeps) <= 72


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        (email.utils.formatdate(1_000_030, usegmt=True), 30),
        ("0", None),
        (email.utils.formatdate(999_000, usegmt=True), None),
        ("-5", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("999999", MAX_NAMED_SECONDS),
        ("9" * 400, None),
        ("9" * 5000, None),
        ("Mon, 99 Foo 20255 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header, seconds):
    named = named_time(header, 1_000_000.0)
    assert named == (None if seconds is None else 1_000_000.0 + seconds)


def test_a_site_gets_no_request_before_the_time_it_names(tmp_path, by_clock, clock):
    times = []

    def limit(handler):
        times.append(clock.time)
        status(429, Retry_After=20)(handler)

    with MediaServer({"a.mp4": limit}) as server:
        limiter, address = by_clock(patience=50.0), server.address("a.mp4")
        for name in ("first", "second"):
            visit = limiter.visit(address)
            with pytest.raises(Refusal) as refusal:
                fetch(address, tmp_path / name, megabytes=1, seconds=60, visit=visit)
            assert refusal.value.reason == "rate-limited"
            visit.record_failure(refusal.value.reason)
    assert len(times) == 2
    assert times[1] - times[0] >= 20


def test_a_back_off_doubles_until_it_exceeds_the_patience(by_clock, clock):
    limiter, waits = by_clock(backoff=0.1), []
    for _ in range(4):
        visit = limiter.visit(ADDRESS)
        visit.permit("site")
        visit.record_failure("rate-limited")
        waits.append(limiter.limited()["site"].until - clock.time)
    assert all(0.1 * 2**n - 1e-6 <= wait <= 1.2 * 0.1 * 2**n + 1e-6 for n, wait in enumerate(waits))
    with pytest.raises(RateLimited, match="rate-limited.*no request to site before 20"):
        limiter.visit(ADDRESS).permit("site")


def test_a_site_that_never_succeeds_is_reported_after_many_tries(tmp_path):
    limiter = limiter_in(tmp_path, backoff=0.0)
    for _ in range(MAX_FAILURES):
        assert not limiter.never_succeeded()
        limiter.visit(ADDRESS).record_failure("forbidden")
    assert list(limiter.never_succeeded()) == ["site"]
    limiter.visit(ADDRESS).record_success(ADDRESS)
    for _ in range(MAX_FAILURES):
        limiter.visit(ADDRESS).record_failure("forbidden")
    assert not limiter.never_succeeded()


def test_one_video_in_error_is_not_the_site_but_many_are(tmp_path):
    limiter = limiter_in(tmp_path)
    for number in range(5):
        visit = limiter.visit(ADDRESS)
        visit.permit("site")
        assert "site" not in limiter.limited(), number
        visit.record_failure("network")
    assert limiter.limited()["site"].reason == "network"


@pytest.mark.parametrize("reason", ["removed", "private", "unsupported", "too-large"])
def test_reasons_that_concern_only_a_video_do_not_limit_the_site(tmp_path, reason):
    limiter = limiter_in(tmp_path)
    for _ in range(20):
        visit = limiter.visit(ADDRESS)
        visit.permit("site")
        visit.record_failure(reason)
    assert not limiter.limited()


def test_after_the_back_off_one_visit_tests_the_site_for_all(tmp_path, by_clock, clock):
    limiter = by_clock(backoff=0.3)
    failed, trying = limiter.visit(ADDRESS), limiter.visit(ADDRESS)
    failed.permit("site")
    failed.record_failure("rate-limited")
    clock.time += 0.4
    trying.permit("site")
    trying.permit("site")  # as many as its video takes
    assert not clock.sleeps
    waited = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        trying.record_success(ADDRESS)

    limiter_in(tmp_path, now=clock.now, sleep=sleep, backoff=0.3).visit(ADDRESS).permit("site")
    assert len(waited) == 1
    assert limiter.known_good("site") == ADDRESS


def test_simultaneous_failures_count_as_one(by_clock, clock):
    limiter = by_clock(backoff=0.2)
    visits = [limiter.visit(ADDRESS) for _ in range(6)]
    for visit in visits:
        visit.permit("site")
    clock.time += 0.01
    for visit in visits:
        visit.record_failure("rate-limited")
    assert limiter.limited()["site"].until - clock.time < 0.3


def test_redirects_count_and_end(tmp_path):
    with MediaServer({"a": status(302, Location="/a")}) as server:
        visit = limiter_in(tmp_path).visit(server.address("a"))
        requested_hosts = []
        visit.permit = requested_hosts.append
        with pytest.raises(Refusal, match="no-media"):
            fetch(server.address("a"), tmp_path / "fetched", megabytes=1, seconds=60, visit=visit)
        assert requested_hosts == [site_of(server.address("a"))] * server.requests["a"]
        assert len(requested_hosts) <= 11


def test_each_part_of_a_video_counts(tmp_path):
    (tmp_path / "a.ts").write_bytes(bytes(2000))
    listing = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n" + b"#EXTINF:1,\na.ts\n" * 7 + b"#EXT-X-ENDLIST\n"
    behaviors = {"a.m3u8": lambda handler: handler.respond(200, listing, "application/x-mpegurl")}
    with MediaServer(behaviors | {"a.ts": serve(tmp_path / "a.ts")}) as server:
        visit = limiter_in(tmp_path).visit(server.address("a.m3u8"))
        requested_hosts = []
        visit.permit = requested_hosts.append
        fetch(server.address("a.m3u8"), tmp_path / "fetched", megabytes=1, seconds=60, visit=visit)
        assert len(requested_hosts) == server.requests.total() >= 8


def _wait_and_work(seconds):
    pause(seconds[0])
    time.sleep(seconds[1])
    return "done"


def test_waiting_on_purpose_does_not_count_against_the_time_of_a_clip():
    items = [[2.0, 0.1], [0.1, 3.0]]
    results = [result for _, result in guarded_map(_wait_and_work, items, Limits(1.5))]
    assert results == ["done", Failure(hung=True)]


def test_a_damaged_file_is_named(tmp_path):
    limiter = limiter_in(tmp_path)
    limiter.check()
    limiter.file.write_bytes(b"not a database, whatever it was before" * 100)
    with pytest.raises(EarshotError, match=r"pace\.sqlite: file is not a database; .*remove it"):
        limiter.check()
    limiter.file.unlink()
    sqlite3.connect(limiter.file).execute("CREATE TABLE hosts (name TEXT)").connection.commit()
    with pytest.raises(EarshotError, match="remove it"):
        limiter.check()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EARSHOT_REQUESTS_PER_HOUR", "-1"),
        ("EARSHOT_REQUESTS_PER_HOUR", "many"),
        ("EARSHOT_BACKOFF", "nan"),
        ("EARSHOT_PATIENCE", "inf"),
        ("EARSHOT_JS_RUNTIME", "java"),
    ],
)
def test_an_invalid_setting_is_named(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        with pytest.raises(EarshotError, match=f"{name} is '{value}'"):
            settings()
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_youtube_gets_no_request_without_javascript(tmp_path, monkeypatch):
    monkeypatch.setenv("EARSHOT_JS_RUNTIME", f"node:{tmp_path / 'node'}")
    settings.cache_clear()
    try:
        elsewhere = ["https://example.org/watch?v=youtube.com", "https://notyoutube.com/a"]
        check_js_runtime(elsewhere)
        for address in ("https://www.youtube.com/watch?v=0123456789a", "https://youtu.be/0123456789a"):
            with pytest.raises(EarshotError, match="requires a JavaScript runtime, and node:.* was not found"):
                check_js_runtime([*elsewhere, address])
        for version, message in (("v18.0.0", "has version 18.0.0, which is too old"), ("v22.1.0", None)):
            (tmp_path / "node").write_text(f"#!/bin/sh\necho {version}\n")
            (tmp_path / "node").chmod(0o755)
            if message:
                with pytest.raises(EarshotError, match=message):
                    check_js_runtime([address])
            else:
                check_js_runtime([address])
    finally:
        monkeypatch.undo()
        settings.cache_clear()
