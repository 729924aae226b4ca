"""What changes how a run is done but never its result: environment variables EARSHOT_*, read here and nowhere else."""

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from earshot.core.errors import EarshotError

NAMES = {
    "EARSHOT_WORKERS": "processes that map over shards (default: the processors this process may use)",
    "EARSHOT_CLUSTER": "a Dask scheduler, tcp://host:8786, whose workers map over shards instead (default: none)",
    "EARSHOT_THREADS": "threads of one training or evaluating process (default: the same)",
    "EARSHOT_PROCESSES": "processes that train one network, on a GPU each or on the CPU (default: 1)",
    "EARSHOT_DEVICE": "auto, cpu or cuda (default: auto)",
    "EARSHOT_SCRATCH": "folder where unfinished work waits (default: .earshot under the root)",
    "EARSHOT_REQUESTS_PER_HOUR": "requests that each site gets in an hour, 0: no limit (default: 1000)",
    "EARSHOT_BACKOFF": "seconds that a site which limits us is left alone at first, doubling (default: 60)",
    "EARSHOT_PATIENCE": "seconds that downloading waits for such a site before it leaves the rest (default: 900)",
    "EARSHOT_JS_RUNTIME": "JavaScript for YouTube: deno, node, bun or quickjs; or node:/usr/bin/node (default: deno)",
    "EARSHOT_COOKIES": "a Netscape cookies file for yt-dlp (default: none)",
    "EARSHOT_PROXY": "a proxy address for yt-dlp (default: none)",
    "EARSHOT_REAL_DATA": "folder of real clips, recordings and photographs for the tests (default: those tests skip)",
}


@dataclass(frozen=True)
class Settings:
    """How this run is done on this machine."""

    workers: int
    cluster: str | None
    threads: int
    processes: int
    device: str
    scratch: Path | None
    requests_per_hour: float
    backoff: float
    patience: float
    js_runtime: str | None
    cookies: Path | None
    proxy: str | None


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises EarshotError for a variable that does not exist and for a value that cannot be.
    """
    unknown = sorted(name for name in os.environ if name.startswith("EARSHOT_") and name not in NAMES)
    if unknown:
        raise EarshotError(f"environment variable {unknown[0]} is not a setting; the settings are {', '.join(NAMES)}")
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = os.environ.get("EARSHOT_DEVICE") or "auto"
    if device not in ("auto", "cpu", "cuda"):
        raise EarshotError(f"EARSHOT_DEVICE is {device!r}, wanted auto, cpu or cuda")
    return Settings(
        workers=_count("EARSHOT_WORKERS", processors),
        cluster=_address("EARSHOT_CLUSTER"),
        threads=_count("EARSHOT_THREADS", processors),
        processes=_count("EARSHOT_PROCESSES", 1),
        device=device,
        scratch=_path("EARSHOT_SCRATCH"),
        # YouTube bears a thousand player requests an hour from a guest, three a video; here every request counts.
        requests_per_hour=_amount("EARSHOT_REQUESTS_PER_HOUR", 1000),
        backoff=_amount("EARSHOT_BACKOFF", 60),
        patience=_amount("EARSHOT_PATIENCE", 900),
        js_runtime=_js_runtime(),
        cookies=_path("EARSHOT_COOKIES"),
        proxy=os.environ.get("EARSHOT_PROXY") or None,
    )


def _count(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < 1:
        raise EarshotError(f"{name} is {text!r}, wanted a whole number of at least 1")
    return int(text)


def _amount(name: str, default: float) -> float:
    text = os.environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise EarshotError(f"{name} is {text!r}, wanted a number of at least 0")
    return value


def _js_runtime() -> str | None:
    text = os.environ.get("EARSHOT_JS_RUNTIME") or None
    if text and text.partition(":")[0] not in ("deno", "node", "bun", "quickjs"):
        raise EarshotError(f"EARSHOT_JS_RUNTIME is {text!r}, wanted deno, node, bun or quickjs, or one with its path")
    return text


def _address(name: str) -> str | None:
    text = os.environ.get(name)
    if text and not re.fullmatch(r"(tcp|tls)://\S+:\d+", text):
        raise EarshotError(f"{name} is {text!r}, wanted the address of a Dask scheduler such as tcp://host:8786")
    return text or None


def _path(name: str) -> Path | None:
    text = os.environ.get(name)
    return Path(text).resolve() if text else None
