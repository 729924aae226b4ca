"""Fetch the video at an address through yt-dlp as a library, and find the reason if that fails.

It fetches the whole source in the smallest sufficient size, or only a section; the clip is cut later, as from any local
file. So cuts are exact whether or not a server supports ranges, and ffmpeg never uses the network. yt-dlp runs without
ffmpeg, plugins, cache and the user's configuration, and each of its requests requires a permit
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
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import imageio_ffmpeg
import requests

from earshot.core.errors import EarshotError
from earshot.core.messages import without_secrets
from earshot.corpus.ledger import Refusal
from earshot.download.partial_download import NoRanges, VideoSection, copy_section
from earshot.download.rate_limit import FAILURE_KINDS, Visit, site_of
from earshot.download.reachable import check_reachable, guard
from earshot.pipeline.settings import settings

# Otherwise yt-dlp would import yt_dlp_plugins from the working folder.
os.environ["YTDLP_NO_PLUGINS"] = "1"

import yt_dlp
from yt_dlp.cookies import YoutubeDLCookieJar
from yt_dlp.networking import Response
from yt_dlp.networking import exceptions as network
from yt_dlp.networking._requests import RequestsRH
from yt_dlp.postprocessor.ffmpeg import FFmpegPostProcessor

SHORT_SIDE = 360  # px; the papers' frames have 256
# Variables that name files or folders of certificates, for OpenSSL and requests.
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
READ_TIMEOUT_SECONDS = 20.0  # without a byte from the server
RETRIES = 2
MAX_REDIRECTS = 10
NO_FFMPEG = "no-ffmpeg"  # a program that does not exist: ffmpeg would request addresses that nobody has checked
PAGE_PIECE = 1 << 16  # bytes of a page that are read and counted at once

# One file with video and audio, or one of each; fetched by yt-dlp itself, over HTTP.
FORMATS = "b[protocol^=http]/(bv[protocol^=http],ba[protocol^=http])/b[protocol=m3u8_native]"

YOUTUBE = re.compile(r"^https?://([\w-]+\.)*(youtube\.com|youtube-nocookie\.com|youtu\.be)/", re.IGNORECASE)

ITEM = r"\b(video|content|media|clip|episode|page|post|track|stream|file|item|channel|playlist|user|account)\b"

# Messages of yt-dlp's extractors in lower case; the first match decides, and a message without a match is `unclear`.
# A permanent reason needs words about this video: an outage would otherwise refuse a whole list.
ERROR_PATTERNS = (
    (r"not a bot|captcha|unusual traffic|cloudflare|login_required.*bot", "blocked"),
    (r"rate.?limit|too many requests|try again later|quota", "rate-limited"),
    (r"(temporarily|currently) (un|not )available|service unavailable|maintenance|unknown error", "unclear"),
    (r"confirm your age|age.?restrict|inappropriate for some users", "age-restricted"),
    (r"(in|from) your (country|location|region)|geo.?restrict|geo.?block", "geo-blocked"),
    (r"private video|video is private|members.only|premium members|join this channel|log.?in required", "private"),
    (r"(for|requires) (registered users|payment)", "private"),
    (r"live event|premieres|no connection adapters", "unsupported"),
    (r"requested format is not available|no video formats|\bdrm\b", "no-media"),
    (rf"{ITEM}.*(removed|terminated|deleted|unavailable|(is not|isn't|no longer) available|does not exist)", "removed"),
    (r"giving up after|did not get any data blocks|timed out|connection (refused|reset)|name resolution", "network"),
)
STATUSES = {
    401: "private",
    404: "not-found",
    407: "network",
    408: "network",
    410: "removed",
    429: "rate-limited",
    451: "geo-blocked",
}


class _Quiet:
    """A logger for yt-dlp that drops messages; errors come as exceptions."""

    def debug(self, message: str) -> None:
        """Drop a message."""

    info = warning = error = debug


class _RateLimitedAdapter(requests.adapters.BaseAdapter):
    """An adapter that sends each request and redirect of a session after a permit, and records the response.

    It requests only addresses that `check_reachable` accepts, and names no password, token or path to other hosts.
    """

    def __init__(self, sending: requests.adapters.HTTPAdapter, visit: Visit) -> None:
        super().__init__()
        guard(sending, visit.listed)
        self.sending, self.visit = sending, visit

    def send(self, request: requests.PreparedRequest, *how: Any, **more: Any) -> requests.Response:
        """Send one request; raise yt-dlp's RequestError, caused by a Refusal, if there is no permit."""
        try:
            address = request.url or ""
            host = site_of(address)
            check_reachable(address, self.visit.listed)
            self.visit.permit(host)
        except (Refusal, sqlite3.Error, ValueError) as error:
            raise network.RequestError(cause=error) from error
        if referrer := request.headers.pop("Referer", None):
            request.headers["Referer"] = _referrer(referrer, address)
        try:
            response = self.sending.send(request, *how, **more)
        except Refusal as refusal:
            raise network.RequestError(cause=refusal) from refusal
        except (requests.ConnectionError, requests.Timeout):
            self.visit.trouble = "network"
            raise
        self.visit.record_response(host, response.status_code, response.headers.get("Retry-After"))
        return response

    def close(self) -> None:
        """Close the connections."""
        self.sending.close()


def _referrer(page: str, address: str) -> str:
    """The Referer header as browsers send it: the page without password and tokens, to other hosts only its host."""
    page = without_secrets(page).partition("#")[0]
    with contextlib.suppress(ValueError):
        if site_of(page) == site_of(address):
            return page
    parts = urlsplit(page)
    return f"{parts.scheme}://{parts.netloc}/"


class _RateLimitedRH(RequestsRH):
    """yt-dlp's request handler, with the rate-limited adapter."""

    def __init__(self, *, visit: Visit, **how: Any) -> None:
        super().__init__(**how)
        self.visit = visit

    def _create_instance(self, *arguments: Any, **named: Any) -> requests.Session:
        session = super()._create_instance(*arguments, **named)
        session.max_redirects = MAX_REDIRECTS
        for prefix, sending in list(session.adapters.items()):
            session.mount(prefix, _RateLimitedAdapter(sending, self.visit))
        return session


class _Pages:
    """The size of all pages of a visit as they are unpacked: a few kB of gzip may hold gigabytes."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes, self.size = megabytes, 0

    def read(self, read: Callable[[int], bytes], amt: int | None = None) -> bytes:
        """What `read` gives; raises Refusal as too-large where all whole pages exceed the limit."""
        if amt is not None:
            return read(amt)
        pieces = []
        while piece := read(PAGE_PIECE):
            self.size += len(piece)
            if self.size > self.megabytes * 1e6:
                limit = f"expected at most {self.megabytes:g} MB (download.max_megabytes)"
                raise Refusal("too-large", f"the site's pages have {self.size / 1e6:.1f} MB or more, {limit}")
            pieces.append(piece)
        return b"".join(pieces)


class _Downloader(yt_dlp.YoutubeDL):
    """yt-dlp with only the rate-limited request handler, and pages of limited size."""

    def __init__(self, options: dict, visit: Visit, megabytes: float) -> None:
        self.visit, self.pages = visit, _Pages(megabytes)
        super().__init__(options)

    def urlopen(self, req: object) -> Response:
        """A response whose whole pages count; media are read in pieces and counted by `_SizeLimit`."""
        response = super().urlopen(req)
        response.read = partial(self.pages.read, response.read)
        return response

    def build_request_director(self, handlers: object, preferences: object = None) -> object:
        """Use the rate-limited handler instead of all others."""
        return super().build_request_director([partial(_RateLimitedRH, visit=self.visit)])


def fetch(
    address: str, folder: Path, *, megabytes: float, seconds: float, visit: Visit, only_start: bool = False
) -> None:
    """Fetch the video at `address` into `folder`: one file, or one with the video track and one with the audio track.

    Creates `folder`, which then holds only these files. `megabytes` limits the total size. The caller limits the total
    time `seconds`; here it limits the wait for a silent server. `visit` gives the permit for each request.
    `only_start` fetches only the first 10 kB, to test whether the video is available.

    Raises Refusal with the reason that the site, the server or the network gives.
    """
    more = {"progress_hooks": [_SizeLimit(megabytes)], "test": only_start}
    with _extracted(address, folder, megabytes, seconds, visit, more) as (downloader, info):
        downloads = downloader.process_ie_result(info, download=True).get("requested_downloads") or []
    paths = {Path(download["filepath"]) for download in downloads}
    for path in set(folder.iterdir()) - paths:
        path.unlink()
    if not paths or not all(path.is_file() for path in paths):
        raise Refusal("network", "the download ended without a file")


def fetch_section(
    address: str, folder: Path, start: float, end: float, *, megabytes: float, seconds: float, visit: Visit
) -> VideoSection:
    """As `fetch`, but only the section between `start` and `end` (s).

    Raises Refusal, and NoRanges if the server does not support ranges.
    """
    with _extracted(address, folder, megabytes, seconds, visit, {"simulate": True}) as (downloader, info):
        info = downloader.process_ie_result(info, download=True)
        formats = [
            info | form for form in info.get("requested_downloads") or []
        ]  # the common fields are only in `info`
        return copy_section(downloader, formats, folder, start, end, megabytes)


@contextlib.contextmanager
def _extracted(
    address: str, folder: Path, megabytes: float, seconds: float, visit: Visit, more: dict
) -> Iterator[tuple[yt_dlp.YoutubeDL, dict]]:
    """A downloader and its information about the video at an address; any exception becomes a Refusal."""
    check_address(address)
    folder.mkdir(parents=True)
    # Parts of yt-dlp look for ffmpeg without its options, and would run one that is installed.
    FFmpegPostProcessor._ffmpeg_location.set(str(folder / NO_FFMPEG))
    try:
        with _Downloader(_options(folder, seconds) | more, visit, megabytes) as downloader:
            info = downloader.extract_info(address, download=False)
            _check_info(info)
            yield downloader, info
    except (Refusal, NoRanges, MemoryError):
        raise
    except Exception as error:  # extractors of a thousand sites raise arbitrary exceptions
        raise _refusal(error, visit.trouble) from None


def check_cookies() -> None:
    """Raise EarshotError if yt-dlp cannot read the cookies file of the setting."""
    file = settings().cookies
    try:
        if file:
            YoutubeDLCookieJar(str(file)).load()
    except (OSError, http.cookiejar.LoadError) as error:
        raise EarshotError(f"{file}: {error}; set EARSHOT_COOKIES to a Netscape cookies file") from None


def check_address(address: str) -> None:
    """Raise Refusal as unsupported for an address that must not be requested."""
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018  # raises for a port that cannot be
    except ValueError as error:
        raise Refusal("unsupported", f"not an address: {error}") from None
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
        raise Refusal("unsupported", f"scheme {parts.scheme!r}, expected http or https")
    if "__youtubedl_smuggle" in parts.fragment:
        raise Refusal("unsupported", "the address carries instructions for yt-dlp")


def _check_info(info: dict) -> None:
    if "entries" in info:
        raise Refusal("unsupported", "a list of videos, expected one video")
    if info.get("is_live") or info.get("live_status") in ("is_live", "is_upcoming"):
        raise Refusal("unsupported", "a live stream has no end")


def _options(folder: Path, seconds: float) -> dict:
    cookies = settings().cookies
    if cookies:
        # yt-dlp overwrites its cookies file.
        own = folder / "cookies.txt"
        own.touch(0o600)
        cookies = shutil.copyfile(cookies, own)
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
        "ffmpeg_location": str(folder / NO_FFMPEG),
        "hls_prefer_native": True,
        "skip_unavailable_fragments": False,
        "continuedl": False,
        "updatetime": False,
        "socket_timeout": min(READ_TIMEOUT_SECONDS, seconds / (RETRIES + 2)),
        "retries": RETRIES,
        "fragment_retries": RETRIES,
        "extractor_retries": 1,
        "retry_sleep_functions": dict.fromkeys(("http", "fragment", "extractor"), _retry_pause),
        "js_runtimes": _js_runtime(),
        "cookiefile": str(cookies) if cookies else None,
        "proxy": settings().proxy,
    }


def _retry_pause(n: int) -> float:
    """Seconds before yt-dlp's n-th retry of a request, from 0."""
    return settings().backoff * FAILURE_KINDS["network"].backoff * 2**n


def _js_runtime() -> dict[str, dict]:
    """The JavaScript runtime of the setting, `name` or `name:path`, in yt-dlp's form."""
    name, _, path = (settings().js_runtime or "deno").partition(":")
    return {name: {"path": path} if path else {}}


def programs_and_settings() -> list[Path]:
    """The files that a download may need beside its modules: ffmpeg, a JavaScript runtime, cookies, certificates."""
    ((name, options),) = _js_runtime().items()
    names = [imageio_ffmpeg.get_ffmpeg_exe(), shutil.which(options.get("path", name)), settings().cookies]
    return [Path(name) for name in (*names, *map(os.environ.get, CERTIFICATES)) if name]


def check_js_runtime(addresses: Iterable[str]) -> None:
    """Raise EarshotError if an address is YouTube's and the required JavaScript runtime is missing or too old.

    Without it, yt-dlp finds no formats, and good videos would be refused.
    """
    if not any(YOUTUBE.search(address) for address in addresses):
        return
    name = settings().js_runtime or "deno"
    with yt_dlp.YoutubeDL({"js_runtimes": _js_runtime(), "logger": _Quiet(), "cachedir": False}) as downloader:
        runtime = next(iter(downloader._js_runtimes.values()), None)
    info = runtime.info if runtime else None
    if info is None or not info.supported:
        problem = "was not found" if info is None else f"has version {info.version}, which is too old"
        raise EarshotError(
            f"YouTube requires a JavaScript runtime, and {name} {problem}: `pip install deno`, or set "
            "EARSHOT_JS_RUNTIME to deno, node, bun or quickjs, if necessary with its path, as in node:/usr/bin/node"
        )


class _SizeLimit:
    """A progress hook of yt-dlp that stops a download whose actual or announced size exceeds the limit."""

    def __init__(self, megabytes: float) -> None:
        self.megabytes = megabytes
        self.sizes: dict[str, int] = {}

    def __call__(self, progress: dict) -> None:
        """Record one report; raise Refusal as too-large."""
        self.sizes[progress["filename"]] = max(progress.get("downloaded_bytes") or 0, progress.get("total_bytes") or 0)
        megabytes = sum(self.sizes.values()) / 1e6
        if megabytes > self.megabytes:
            raise Refusal(
                "too-large", f"{megabytes:.1f} MB, expected at most {self.megabytes:g} MB (download.max_megabytes)"
            )


def _refusal(error: Exception, trouble: str | None = None) -> Refusal:
    """The ledger's reason for an exception of yt-dlp: `unclear` unless its kind or its message is known.

    `trouble` is the reason of a failed request: extractors continue without optional parts and may then raise an
    unrelated error.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, sqlite3.Error | MemoryError) or getattr(cause, "errno", None) in (
            errno.ENOSPC,
            errno.EDQUOT,
        ):
            raise cause  # not a fault of the clip
        if isinstance(cause, Refusal):
            return cause
    message = " ".join(str(cause) for cause in causes).lower().replace("’", "'")
    by_kind = (reason for cause in causes if (reason := _reason_of(cause)))
    by_message = (reason for pattern, reason in ERROR_PATTERNS if re.search(pattern, message))
    # Remove colors, the repeated inner exception, and the names of extractor and video.
    text = re.sub(r"\x1b\[[\d;]*m| \(caused by .*", "", str(error))
    text = re.sub(r"^\s*(ERROR:)?\s*(\[[\w:]+\] (\S+: )?)?", "", text)
    reason = next(itertools.chain(by_kind, by_message), "unclear")
    return Refusal(trouble if trouble and reason in ("unclear", "no-media", "unsupported") else reason, text)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception of yt-dlp and all of its causes, each once."""
    pending, visited = [error], set()
    while pending:
        error = pending.pop(0)
        if isinstance(error, BaseException) and id(error) not in visited:
            visited.add(id(error))
            yield error
            inner = getattr(error, "exc_info", None) or (None, None, None)
            pending += [inner[1], getattr(error, "cause", None), error.__cause__, error.__context__]


def _reason_of(error: BaseException) -> str | None:
    if isinstance(error, network.HTTPError):
        otherwise = "no-media" if error.redirect_loop else "network" if error.status >= 500 else "forbidden"
        return STATUSES.get(error.status, otherwise)
    if isinstance(error, yt_dlp.utils.GeoRestrictedError):
        return "geo-blocked"
    if isinstance(error, yt_dlp.utils.UnsupportedError):
        return "no-media"  # a page without a video; or a login, or a notice of the site's maintenance
    if isinstance(error, network.UnsupportedRequest | network.NoSupportingHandlers):
        return "unsupported"
    temporary = network.TransportError | yt_dlp.utils.ContentTooShortError | TimeoutError | ConnectionError
    return "network" if isinstance(error, temporary) else None
