"""Sites that resist downloading, simulated by servers on this machine that log every request.

Each site is a port with a kind of limit: after a number of requests, for a while, it responds with Retry-After in
seconds or as a date, with 429 alone, or with 403. Each video behaves in one way, so the expected outcome of every clip
is known, and the log holds the time of each request.
"""

import email.utils
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
from conftest import PARAMS
from media_server import Behavior, MediaServer, lie, serve, stall, status

from earshot.corpus.ledger import read_ledger

REPOSITORY = Path(__file__).resolve().parents[1]
SECONDS = 1.0  # of every clip
LIMITS = ("patient", "seconds", "date", "silent", "forbidding")
NEAR = 0.5  # s between a response and the client's reaction on a busy machine


@dataclass(frozen=True)
class Way:
    """How the site treats a video: the outcome of its clip, and its behavior by the number of the request, from 1."""

    outcome: tuple[str, str]
    behavior: Callable[[dict[str, Path], int], Behavior]
    share: float


KEPT = ("kept", "")


def _after(requests: int, first: Behavior, then: Callable[[dict[str, Path]], Behavior]) -> Callable:
    return lambda media, number: first if number <= requests else then(media)


def _good(media: dict[str, Path]) -> Behavior:
    return serve(media["good"])


WAYS = {
    "good": Way(KEPT, lambda media, _: _good(media), 0.60),
    "unwell": Way(KEPT, _after(1, status(500), _good), 0.05),
    "unwell-twice": Way(KEPT, _after(2, status(503), _good), 0.03),
    "stalls": Way(KEPT, _after(1, stall(), _good), 0.01),
    "lies-once": Way(KEPT, lambda media, n: lie(media["good"], 100) if n == 2 else _good(media), 0.02),
    "deleted": Way(("refused", "removed"), lambda *_: status(410), 0.05),
    "missing": Way(("refused", "not-found"), lambda *_: status(404), 0.04),
    "private": Way(("refused", "private"), lambda *_: status(401), 0.03),
    "law": Way(("refused", "geo-blocked"), lambda *_: status(451), 0.02),
    "forbidden": Way(("refused", "forbidden"), lambda *_: status(403), 0.02),
    "circle": Way(("refused", "no-media"), lambda *_: _circle, 0.01),
    "silent": Way(("refused", "no-sound"), lambda media, _: serve(media["silent"]), 0.03),
    "garbage": Way(("refused", "unreadable"), lambda media, _: serve(media["garbage"]), 0.03),
    "vanishes": Way(("refused", "removed"), _after(2, status(503), lambda _: status(410)), 0.03),
    "lies": Way(("pending", "network"), lambda media, _: lie(media["good"], 100), 0.01),
    "down": Way(("pending", "network"), lambda *_: status(503), 0.02),
}


def _circle(handler) -> None:
    status(302, Location=handler.path)(handler)


@dataclass
class Request:
    """One line of the log: the time of a request, and the end of the limit that the site then named, if any."""

    at: float
    name: str
    until: float = 0.0


@dataclass
class Site:
    """A site: its kind of limit, its videos by name, and its log. It limits for `seconds` after `every` requests."""

    limit: str
    every: int
    seconds: float
    media: dict[str, Path]
    ways: dict[str, str] = field(default_factory=dict)
    log: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _answered: Counter = field(default_factory=Counter)
    _well: int = 0
    _until: float = 0.0

    def behave(self, handler) -> None:
        """Respond to a request: by the site's limit, then by the way of the video."""
        name = handler.path.lstrip("/")
        with self._lock:
            request = Request(time.time(), name)
            self.log.append(request)
            behavior = self._limit_response(request)
            if behavior is None:
                self._answered[name] += 1
                way = WAYS[self.ways[name]]
                behavior = way.behavior(self.media, self._answered[name])
        behavior(handler)

    def _limit_response(self, request: Request) -> Behavior | None:
        if self.limit == "patient":
            return None
        if request.at >= self._until:
            self._well += 1
            if self._well % self.every:
                return None
            self._until = request.at + self.seconds
        left = self._until - request.at
        if self.limit == "seconds":
            whole = int(left) + 1
            request.until = request.at + whole
            return status(429, Retry_After=whole)
        if self.limit == "date":
            request.until = float(int(self._until) + 1)
            return status(429, Retry_After=email.utils.formatdate(request.until, usegmt=True))
        return status(429 if self.limit == "silent" else 403)


class HostileWeb:
    """A site with each kind of limit, and `clips` videos spread over them; used as a context."""

    def __init__(self, clips: int, media: dict[str, Path], *, every: int, seconds: float, seed: int = 0) -> None:
        self.sites = [Site(limit, every, seconds, media) for limit in LIMITS]
        self._servers = [MediaServer(otherwise=site.behave) for site in self.sites]
        self.expected: dict[str, tuple[str, str]] = {}
        chance = random.Random(seed)
        ways = list(WAYS)
        shares = [way.share for way in WAYS.values()]
        for number in range(clips):
            site = number % len(LIMITS)
            # Each way occurs at least once, if there are enough clips.
            way = ways[number] if number < len(ways) else chance.choices(ways, shares)[0]
            name = f"{number:06d}.mp4"
            self.sites[site].ways[name] = way
            self.expected[self._servers[site].address(name)] = WAYS[way].outcome

    def __enter__(self) -> "HostileWeb":
        for server in self._servers:
            server.__enter__()
        return self

    def __exit__(self, *how: object) -> None:
        for server in self._servers:
            server.__exit__(*how)

    def manifest(self, path: Path, seconds: float) -> Path:
        """Write a manifest with the first `seconds` of every video."""
        path.write_text("url,start,end\n" + "".join(f"{address},0,{seconds}\n" for address in self.expected))
        return path


def excess_requests(log: list[Request], gap: float) -> float:
    """The most requests by which any period of the log exceeds the budget of one in `gap` seconds."""
    worst, least = 0.0, float("inf")
    for number, request in enumerate(sorted(log, key=lambda request: request.at)):
        excess = number - request.at / gap
        least = min(least, excess)
        worst = max(worst, excess - least)
    return worst


def too_early(log: list[Request]) -> int:
    """The number of requests during a limit that the site had named."""
    log = sorted(log, key=lambda request: request.at)
    early = 0
    for number, request in enumerate(log):
        waits = (past.until for past in log[:number] if past.at + NEAR < request.at)
        early += any(request.at < until - 0.01 for until in waits)
    return early


def render(folder: Path) -> dict[str, Path]:
    """Tiny media: a good one, one without sound, one that is not media."""
    paths = {name: folder / f"{name}.mp4" for name in ("good", "silent", "garbage")}
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error"]
    image = ["-f", "lavfi", "-i", "testsrc=size=32x32:rate=5:duration=1", "-pix_fmt", "yuv420p"]
    sound = ["-f", "lavfi", "-i", "sine=sample_rate=8000:duration=1", "-c:a", "aac", "-b:a", "16k"]
    subprocess.run([*command, *image, str(paths["silent"])], check=True)
    subprocess.run([*command, *sound[:4], *image[:4], *image[4:], *sound[4:], str(paths["good"])], check=True)
    paths["garbage"].write_bytes(random.Random(0).randbytes(3000))
    return paths


class Downloads:
    """Runs of the stage under one root, as a user would start them, some of them killed."""

    def __init__(self, root: Path, requests_per_hour: float, **environment: str) -> None:
        self.root = root
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "EARSHOT_WORKERS": "2",
            "EARSHOT_REQUESTS_PER_HOUR": str(requests_per_hour),
            "EARSHOT_BACKOFF": "0.5",
            "EARSHOT_PATIENCE": "3",
            **environment,
        }

    def start(self, *more: str) -> subprocess.Popen:
        """Start a run."""
        place = ["--root", str(self.root), "--params", str(PARAMS)]
        sets = ["corpus.manifest=manifest.csv", "download.timeout_s=20", "download.shard_clips=40"]
        command = [sys.executable, "-m", "stages.download", *place, *(f"--set={value}" for value in sets), *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, start_new_session=True, **pipes)

    def run(self, *more: str) -> tuple[int, str, str]:
        """A complete run: exit status, stdout, stderr."""
        process = self.start(*more)
        out, err = process.communicate()
        return process.returncode, out, err

    def kill(self, seconds: float) -> None:
        """A run that is killed after `seconds`; its child processes then end too."""
        process = self.start()
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    def status(self) -> dict:
        """The output of --status --json."""
        code, out, err = self.run("--status", "--json")
        assert code == 0, err
        return json.loads(out)


def download_all(web: HostileWeb, downloads: Downloads, *, kills: int, runs: int, chance: random.Random) -> int:
    """Kill `kills` runs, then run until only hopeless clips are pending; return the number of runs."""
    web.manifest(downloads.root / "manifest.csv", SECONDS)
    for _ in range(kills):
        downloads.kill(chance.uniform(3, 12))
    pending = sum(outcome[0] == "pending" for outcome in web.expected.values())
    for number in range(1, runs + 1):
        code, _, error = downloads.run()
        assert code == (1 if pending else 0) or "pending" in error, error
        assert "Traceback" not in error, error
        metadata = downloads.status()
        if sum(value for name, value in metadata.items() if name.startswith("pending")) <= pending:
            return number
        time.sleep(3)  # a site may limit for longer than the patience
    raise AssertionError(f"after {runs} runs: {metadata}")


def outcomes(root: Path) -> dict[str, tuple[str, str]]:
    """The outcome of each clip, from the ledger of a finished run."""
    rows = [row for path in sorted((root / "data/clips/ledger").glob("*.csv")) for row in read_ledger(path)]
    return {row.source: (row.status, row.reason) for row in rows}


def unexpected(actual: dict[str, tuple[str, str]], expected: dict[str, tuple[str, str]]) -> dict[str, tuple]:
    """The clips with an unexpected outcome: the actual and the expected one.

    A hopeless clip is pending with the last reason of its site, which may also be that it blocks.
    """
    compared = {source: (actual.get(source), outcome) for source, outcome in expected.items()}
    both_wait = {source for source, (one, other) in compared.items() if one and one[0] == other[0] == "pending"}
    return {source: pair for source, pair in compared.items() if pair[0] != pair[1] and source not in both_wait}
