"""A real HTTP server on this machine that serves media correctly or badly, by address, and counts requests."""

import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Behavior = Callable[["_Handler"], None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Ignore clients that disconnect."""


class MediaServer:
    """Serves each name in `behaviors`, and the others with `otherwise` (default: 404); used as a context."""

    def __init__(self, behaviors: dict[str, Behavior] | None = None, otherwise: Behavior | None = None) -> None:
        self.behaviors = behaviors or {}
        self.otherwise = otherwise or status(404)
        self.requests: Counter[str] = Counter()
        self.parts: Counter[str] = Counter()  # bytes of the requested ranges with a start and an end
        self.ending = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.media = self

    def address(self, name: str) -> str:
        """The address of a name on this server."""
        return f"http://127.0.0.1:{self._server.server_port}/{name}"

    def __enter__(self) -> "MediaServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.path.split("?")[0].lstrip("/")
        media = self.server.media
        media.requests[name] += 1
        try:
            media.behaviors.get(name, media.otherwise)(self)
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def respond(self, code: int, body: bytes, kind: str = "video/mp4", **headers: object) -> None:
        """Send a whole response; `headers` replace the usual ones."""
        self.send_response(code)
        for name, value in ({"Content_Type": kind, "Content_Length": len(body)} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


def serve(path: Path, *, ranges: bool = True) -> Behavior:
    """A file; with `ranges`, a part of it if the request has a range."""

    def behave(handler: _Handler) -> None:
        body = path.read_bytes()
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", ""))
        if not (ranges and requested):
            handler.respond(200, body, **({"Accept_Ranges": "bytes"} if ranges else {}))
            return
        first = int(requested[1])
        last = min(int(requested[2] or len(body)), len(body) - 1)
        if requested[2]:
            handler.server.media.parts[handler.path.lstrip("/")] += last + 1 - first
        handler.respond(206, body[first : last + 1], Content_Range=f"bytes {first}-{last}/{len(body)}")

    return behave


def status(code: int, **headers: object) -> Behavior:
    """An error, or a redirect."""
    return lambda handler: handler.respond(code, b"no\n", "text/plain", **headers)


def send(body: bytes, kind: str = "video/mp4", **headers: object) -> Behavior:
    """Any bytes with any content type."""
    return lambda handler: handler.respond(200, body, kind, **headers)


def stall(sent: bytes = b"") -> Behavior:
    """A million bytes are announced but not sent, until the server ends."""

    def behave(handler: _Handler) -> None:
        handler.close_connection = True
        handler.respond(200, sent, Content_Length=1_000_000)
        handler.server.media.ending.wait(60)

    return behave


def lie(path: Path, more: int) -> Behavior:
    """A file whose announced length is wrong by `more` bytes, after which the connection ends."""

    def behave(handler: _Handler) -> None:
        handler.close_connection = True
        body = path.read_bytes()
        handler.respond(200, body, Content_Length=len(body) + more)

    return behave


def drip(path: Path, pause: float) -> Behavior:
    """A file, a hundred bytes at a time."""

    def behave(handler: _Handler) -> None:
        handler.close_connection = True
        body = path.read_bytes()
        handler.respond(200, b"", Content_Length=len(body))
        for start in range(0, len(body), 100):
            handler.wfile.write(body[start : start + 100])
            if handler.server.media.ending.wait(pause):
                return

    return behave


def endless(kind: str = "video/mp4") -> Behavior:
    """Bytes without end and without a length."""

    def behave(handler: _Handler) -> None:
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.end_headers()
        while not handler.server.media.ending.is_set():
            handler.wfile.write(bytes(65536))

    return behave
