"""Fetching the video behind an address, through yt-dlp as a library, and telling why one cannot be had.

The whole source comes, at the smallest size that will do, or only a section of it, and is cut afterwards as any local
file is: cuts are exact whether or not a server can send a part, and ffmpeg never talks to the network. yt-dlp runs
without ffmpeg, plugins, cache and configuration files of the user, and none of its requests leaves without a permit
(earshot.download.rate_limit).
"""

import contextlib
import errno
import http.cookiejar
import itertools
import os
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from earshot.core.errors import EarshotError
from earshot.corpus.ledger import Refusal
from earshot.download.partial_download import NoRanges, Section, copy_section
from earshot.download.rate_limit import FAILING, Visit, site_of
from earshot.pipeline.settings import settings

# yt-dlp would import yt_dlp_plugins from the folder that a user happens to stand in.
os.environ["YTDLP_NO_PLUGINS"] = "1"

import yt_dlp
from yt_dlp.cookies import YoutubeDLCookieJar
from yt_dlp.networking import exceptions as network
from yt_dlp.networking._requests import RequestsRH

SHORT_SIDE = 360  # px; the papers' frames have 256
SILENCE_SECONDS = 20.0  # that a server may keep quiet
TRIES_AGAIN = 2
MOST_REDIRECTS = 10

# One file with picture and sound, or one of each; fetched by yt-dlp itself, over HTTP.
FORMATS = "b[protocol^=http]/(bv[protocol^=http],ba[protocol^=http])/b[protocol=m3u8_native]"

YOUTUBE = re.compile(r"^https?://([\w-]+\.)*(youtube\.com|youtube-nocookie\.com|youtu\.be)/", re.IGNORECASE)

# What sites say, in the order in which to look for it: the words of yt-dlp's extractors, in lower case.
ERROR_PATTERNS = (
    (r"not a bot|captcha|unusual traffic|cloudflare|login_required.*bot", "blocked"),
    (r"rate.?limit|too many requests|try again later", "rate-limited"),
    (r"confirm your age|age.?restrict|inappropriate for some users", "age-restricted"),
    (r"(in|from) your (country|location|region)|geo.?restrict|geo.?block", "geo-blocked"),
    (r"private video|video is private|members.only|join this channel|sign in|log.?in required", "private"),
    (r"requested format is not available|no video formats|\bdrm\b|live event|premieres", "unsupported"),
    (r"removed|terminated|deleted|unavailable|(is not|isn't|no longer) available|does not exist", "removed"),
    (r"giving up after|did not get any data blocks|timed out|connection (refused|reset)|name resolution", "network"),
)
STATUSES = {401: "private", 404: "not-found", 408: "network", 410: "removed", 429: "rate-limited", 451: "geo-blocked"}


class _Quiet:
    """A logger for yt-dlp that keeps to itself: whatever matters comes as an exception."""

    def debug(self, message: str) -> None:
        """Drop a message."""

    info = warning = error = debug


class _Paced(requests.adapters.BaseAdapter):
    """What sends the requests of a session, each redirect by itself: after a permit, and with an eye on the answer."""

    def __init__(self, sending: requests.adapters.BaseAdapter, visit: Visit) -> None:
        super().__init__()
        self.sending, self.visit = sending, visit

    def send(self, request: requests.PreparedRequest, *how: Any, **more: Any) -> requests.Response:
        """Send one request; raise yt-dlp's RequestError, caused by a Refusal, where there is no permit to be had."""
        try:
            host = site_of(request.url or "")
            self.visit.permit(host)
        except (Refusal, sqlite3.Error, ValueError) as error:
            raise network.RequestError(cause=error) from error
        try:
            response = self.sending.send(request, *how, **more)
        except (requests.ConnectionError, requests.Timeout):
            self.visit.trouble = "network"
            raise
        self.visit.record_response(host, response.status_code, response.headers.get("Retry-After"))
        return response

    def close(self) -> None:
        """Close the connections."""
        self.sending.close()


class _PacedRH(RequestsRH):
    """The way in which yt-dlp makes all of its requests."""

    def __init__(self, *, visit: Visit, **how: Any) -> None:
        super().__init__(**how)
        self.visit = visit

    def _create_instance(self, *arguments: Any, **named: Any) -> requests.Session:
        session = super()._create_instance(*arguments, **named)
        session.max_redirects = MOST_REDIRECTS
        for prefix, sending in list(session.adapters.items()):
            session.mount(prefix, _Paced(sending, self.visit))
        return session


class _Downloader(yt_dlp.YoutubeDL):
    """yt-dlp with no way to the network but the paced one."""

    def __init__(self, options: dict, visit: Visit) -> None:
        self.visit = visit
        super().__init__(options)

    def build_request_director(self, handlers: object, preferences: object = None) -> object:
        """Take the paced handler in the place of all others."""
        return super().build_request_director([partial(_PacedRH, visit=self.visit)])


def fetch(
    address: str, folder: Path, *, megabytes: float, seconds: float, visit: Visit, only_try: bool = False
) -> None:
    """Fetch the video behind `address` into `folder`: one file, or one with the picture and one with the sound.

    `folder` is made and holds nothing else afterwards. `megabytes` is the most that may come in all; `seconds`, the
    time for all of it, is kept from outside, and here bounds how long a silent server is waited for. `visit` gives
    the permit for each request. With `only_try` the first 10 kB come, to see whether the rest would.

    Raises Refusal with the reason of the site, the server or the network.
    """
    more = {"progress_hooks": [_SizeLimit(megabytes)], "test": only_try}
    with _asked(address, folder, seconds, visit, more) as (downloader, info):
        downloads = downloader.process_ie_result(info, download=True).get("requested_downloads") or []
    paths = {Path(download["filepath"]) for download in downloads}
    for path in set(folder.iterdir()) - paths:
        path.unlink()
    if not paths or not all(path.is_file() for path in paths):
        raise Refusal("network", "the download ended without a file")


def fetch_section(
    address: str, folder: Path, start: float, end: float, *, megabytes: float, seconds: float, visit: Visit
) -> Section:
    """As `fetch`, but only what lies between `start` and `end`, in seconds.

    Raises Refusal, and NoRanges where the server only gives the whole.
    """
    with _asked(address, folder, seconds, visit, {"simulate": True}) as (downloader, info):
        info = downloader.process_ie_result(info, download=True)
        formats = [info | form for form in info.get("requested_downloads") or []]  # which lack what they share
        return copy_section(downloader, formats, folder, start, end, megabytes)


@contextlib.contextmanager
def _asked(
    address: str, folder: Path, seconds: float, visit: Visit, more: dict
) -> Iterator[tuple[yt_dlp.YoutubeDL, dict]]:
    """A downloader, and what it was told of the video behind an address; whatever it raises becomes a Refusal."""
    check_address(address)
    folder.mkdir(parents=True)
    try:
        with _Downloader(_options(folder, seconds) | more, visit) as downloader:
            info = downloader.extract_info(address, download=False)
            _check_info(info)
            yield downloader, info
    except (Refusal, NoRanges):
        raise
    except Exception as error:  # extractors of a thousand sites raise whatever they like
        raise _refusal(error, visit.trouble) from None


def check_cookies() -> None:
    """Raise EarshotError where the setting names a file that yt-dlp cannot read cookies from."""
    file = settings().cookies
    try:
        if file:
            YoutubeDLCookieJar(str(file)).load()
    except (OSError, http.cookiejar.LoadError) as error:
        raise EarshotError(f"{file}: {error}; EARSHOT_COOKIES names a Netscape cookies file") from None


def check_address(address: str) -> None:
    """Raise Refusal as unsupported for an address that is not asked."""
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise Refusal("unsupported", f"not an address: {error}") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise Refusal("unsupported", f"scheme {parts.scheme!r}, only http and https are asked")
    if "__youtubedl_smuggle" in parts.fragment:
        raise Refusal("unsupported", "the address carries instructions for yt-dlp")


def _check_info(info: dict) -> None:
    if "entries" in info:
        raise Refusal("unsupported", "a list of videos, not one")
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise Refusal("unsupported", "a live stream has no end")


def _options(folder: Path, seconds: float) -> dict:
    cookies = settings().cookies
    if cookies:
        # yt-dlp writes back what it was given.
        cookies = shutil.copyfile(cookies, folder / "cookies.txt")
    return {
        "format": FORMATS,
        "format_sort": [f"res:{SHORT_SIDE}", "vcodec:h264", "acodec:aac"],
        "paths": {"home": str(folder)},
        "outtmpl": "%(format_id).40s.%(ext)s",
        "restrictfilenames": True,
        "noplaylist": True,
        "extract_flat": "in_playlist",
        "ignoreerrors": False,
        "logger": _Quiet(),
        "noprogress": True,
        "cachedir": False,
        "fixup": "never",
        "ffmpeg_location": str(folder / "no-ffmpeg"),
        "hls_prefer_native": True,
        "skip_unavailable_fragments": False,
        "continuedl": False,
        "updatetime": False,
        "socket_timeout": min(SILENCE_SECONDS, seconds / (TRIES_AGAIN + 2)),
        "retries": TRIES_AGAIN,
        "fragment_retries": TRIES_AGAIN,
        "extractor_retries": 1,
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), _before_trying_again),
        "js_runtimes": _js_runtime(),
        "cookiefile": str(cookies) if cookies else None,
        "proxy": settings().proxy,
    }


def _before_trying_again(n: int) -> float:
    """Seconds before yt-dlp tries the same request again, the n-th time from 0."""
    return settings().backoff * FAILING["network"].backoff * 2**n


def _js_runtime() -> dict[str, dict]:
    """The JavaScript runtime of the setting, `name` or `name:path`, as yt-dlp wants it."""
    name, _, path = (settings().js_runtime or "deno").partition(":")
    return {name: {"path": path} if path else {}}


def check_js_runtime(addresses: Iterable[str]) -> None:
    """Raise EarshotError where YouTube is asked and the JavaScript runtime that it needs is not there or too old.

    Without one its videos would come to have no formats, and be refused for what is no fault of theirs.
    """
    if not any(YOUTUBE.search(address) for address in addresses):
        return
    wanted = settings().js_runtime or "deno"
    with yt_dlp.YoutubeDL({"js_runtimes": _js_runtime(), "logger": _Quiet(), "cachedir": False}) as downloader:
        found = next(iter(downloader._js_runtimes.values()), None)
    said = "is not there" if found is None or found.info is None else f"is of version {found.info.version}, too old"
    if found is None or found.info is None or not found.info.supported:
        raise EarshotError(
            f"YouTube is asked, which needs a JavaScript runtime, and {wanted} {said}: `pip install deno`, or name "
            "another in EARSHOT_JS_RUNTIME: deno, node, bun or quickjs, with its path where it is not found, as in "
            "node:/usr/bin/node"
        )


class _SizeLimit:
    """A progress hook of yt-dlp that ends a download when it is, or says that it will be, larger than the limit."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.sizes: dict[str, int] = {}

    def __call__(self, progress: dict) -> None:
        """Take note of one report; raise Refusal as too-large."""
        self.sizes[progress["filename"]] = max(progress.get("downloaded_bytes") or 0, progress.get("total_bytes") or 0)
        megabytes = sum(self.sizes.values()) / 1e6
        if megabytes > self.megabytes:
            raise Refusal("too-large", f"{megabytes:.1f} MB, at most {self.megabytes:g} MB are fetched")


def _refusal(error: Exception, trouble: str | None = None) -> Refusal:
    """The reason on the ledger's list for whatever yt-dlp raised.

    `trouble` is the reason of a request that went wrong: extractors go on without what is not essential, and then
    complain of something else.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, sqlite3.Error) or getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise cause  # not the clip's fault
        if isinstance(cause, Refusal):
            return cause
    said = " ".join(str(cause) for cause in causes).lower().replace("’", "'")
    by_kind = (reason for cause in causes if (reason := _reason_of(cause)))
    by_words = (reason for words, reason in ERROR_PATTERNS if re.search(words, said))
    # Without colours, the exception inside, which says the same once more, and the names of extractor and video.
    text = re.sub(r"\x1b\[[\d;]*m| \(caused by .*", "", str(error))
    text = re.sub(r"^\s*(ERROR:)?\s*(\[[\w:]+\] (\S+: )?)?", "", text)
    reason = next(itertools.chain(by_kind, by_words), "unsupported")
    return Refusal(trouble if trouble and reason == "unsupported" else reason, text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception of yt-dlp and all that led to it, each once."""
    waiting, seen = [error], set()
    while waiting:
        error = waiting.pop(0)
        if isinstance(error, BaseException) and id(error) not in seen:
            seen.add(id(error))
            yield error
            inner = getattr(error, "exc_info", None) or (None, None, None)
            waiting += [inner[1], getattr(error, "cause", None), error.__cause__, error.__context__]


def _reason_of(error: BaseException) -> str | None:
    if isinstance(error, network.HTTPError):
        otherwise = "unsupported" if error.redirect_loop else "network" if error.status >= 500 else "forbidden"
        return STATUSES.get(error.status, otherwise)
    if isinstance(error, yt_dlp.utils.GeoRestrictedError):
        return "geo-blocked"
    if isinstance(error, yt_dlp.utils.UnsupportedError | network.UnsupportedRequest | network.NoSupportingHandlers):
        return "unsupported"
    passing = network.TransportError | yt_dlp.utils.ContentTooShortError | TimeoutError | ConnectionError
    return "network" if isinstance(error, passing) else None
