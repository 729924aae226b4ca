"""Published lists: a small JSON file gives the address and the checksum of a list, and takes the place of a manifest.

    {"about": "...", "lists": [{"address": "https://...", "sha256": "...", "bytes": 1211931}]}

`lists` are read one after another. `starts`, only for AVE, are AudioSet's lists, which give the start of each clip.
Lists are cached in a folder, so each is fetched once. A list must match its checksum; if that is unknown (null), the
program prints and records the actual one, so that you can add it to the file.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO
from urllib.parse import unquote, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earshot.core.errors import EarshotError
from earshot.core.files import open_lock, write_atomically
from earshot.core.messages import without_secrets
from earshot.corpus.ave import read_ave
from earshot.corpus.ledger import Refusal
from earshot.corpus.manifest import ManifestRow, manifest_file, numbered_rows
from earshot.download.rate_limit import named_time, site_of
from earshot.download.reachable import check_reachable, guard
from earshot.pipeline.settings import settings

SUFFIX = ".json"
LISTS_FILE = "lists.json"  # beside the clips
LIST_BYTES = 1 << 30  # maximum size of a list of unknown length; AudioSet's largest has some 100 MB
FILE_BYTES = 1 << 20  # maximum size of the file that names the lists
READ_TIMEOUT_SECONDS = 30.0  # without a byte from the server
LIST_SECONDS = 1800.0  # in total for one list
TRIES = 4
PAUSE_SECONDS = 1.0  # before the second try; doubles each time
MAX_PAUSE_SECONDS = 60.0  # s; the longest Retry-After that is obeyed here
REDIRECTS = 5
CHUNK_BYTES = 1 << 16  # bytes


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ListFile(_Strict):
    """One list: its address, and its checksum and length if known."""

    address: Annotated[str, Field(pattern=r"^https?://[^\s/]+/")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    bytes: Annotated[int, Field(ge=1)] | None


class PublishedLists(_Strict):
    """The content of a file under manifests/."""

    about: str
    lists: Annotated[tuple[ListFile, ...], Field(min_length=1, strict=False)]
    starts: Annotated[tuple[ListFile, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class FetchedList:
    """A fetched list: its address, its file, and its actual checksum and length."""

    address: str
    file: Path
    sha256: str
    bytes: int
    is_known: bool  # whether the file gives its checksum


@dataclass(frozen=True)
class Manifest:
    """The manifest of a run: one file, or the lists that a file of published lists names.

    `file` is the file that the user gave, for messages; local paths start from its folder.
    """

    file: Path
    lists: tuple[FetchedList, ...] = ()
    starts: tuple[FetchedList, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether the rows are a published list, which the user cannot edit."""
        return bool(self.lists)

    def rows(self) -> Iterator[tuple[int, ManifestRow]]:
        """All rows in order, each with its line.

        Raises EarshotError as `read_manifest` does.
        """
        if not self.is_published:
            yield from numbered_rows(self.file)
        for fetched in self.lists:
            if self.starts:
                yield from read_ave(fetched.file, [start.file for start in self.starts])
            else:
                yield from numbered_rows(fetched.file)

    def unknown(self) -> list[str]:
        """A message for each list whose checksum is not in the file."""
        return [
            f"{self.file}: no checksum is known of {fetched.address}; received {fetched.bytes:,} bytes with the sha256 "
            f"{fetched.sha256}: check {fetched.file} and add both values to the file, to detect a changed list"
            for fetched in (*self.lists, *self.starts)
            if not fetched.is_known
        ]

    def write_lists(self, folder: Path) -> None:
        """Write address, sha256 and length of each published list to lists.json beside the clips."""
        lists = [
            {"address": without_secrets(fetched.address), "sha256": fetched.sha256, "bytes": fetched.bytes}
            for fetched in (*self.lists, *self.starts)
        ]
        if lists:
            with write_atomically(folder / LISTS_FILE) as temporary_path:
                temporary_path.write_text(json.dumps(lists, indent=2) + "\n")


def open_manifest(path: Path, folder: Path) -> Manifest:
    """The manifest at a path; published lists that it names are fetched into `folder` once.

    Raises EarshotError if there is none, if a file of published lists is invalid, and if a list cannot be fetched or
    has another checksum.
    """
    file = manifest_file(path)
    if file.suffix.lower() != SUFFIX:
        return Manifest(file)
    published = read_published(file)
    return Manifest(
        file,
        tuple(fetch_list(file, listed, folder) for listed in published.lists),
        tuple(fetch_list(file, listed, folder) for listed in published.starts),
    )


def read_published(file: Path) -> PublishedLists:
    """Read a file of published lists.

    Raises EarshotError, with the field, if the file is invalid.
    """
    if file.stat().st_size > FILE_BYTES:
        raise EarshotError(f"{file}: larger than {FILE_BYTES:,} bytes; expected a file such as manifests/ave.json")
    try:
        return PublishedLists.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise EarshotError(f"{file}: {field}: {first['msg']}; compare with manifests/audioset-balanced.json") from None


def fetch_list(file: Path, listed: ListFile, folder: Path) -> FetchedList:
    """Fetch a list that `file` names into `folder`, unless it is there.

    An interrupted list with a checksum is resumed. A list without a checksum is never replaced: remove it to fetch it
    again.

    Raises EarshotError if the list cannot be fetched or has another checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = re.sub(r"[^\w.-]+", "-", unquote(PurePosixPath(urlsplit(listed.address).path).name), flags=re.ASCII)
    key = listed.sha256 or f"unknown-{hashlib.sha256(listed.address.encode()).hexdigest()}"
    target = folder / f"{key[:24]}-{last[-60:] or 'list'}"
    part = folder / f".{target.name}.part"
    with open_lock(folder / "lock") as lock:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)  # another run may fetch the same list
        if target.is_file() and (kept := _expected_list(listed, target)):
            return kept
        # The first part may belong to an older version of the list: only then can a second try succeed.
        for _ in range(2 if part.exists() else 1):
            _fetch(file, listed, part)
            os.replace(part, target)
            if fetched := _expected_list(listed, target):
                return fetched
            actual = _describe(listed, target)
            target.unlink()
    raise EarshotError(
        f"{file}: {listed.address} gave {actual.bytes:,} bytes with the sha256 {actual.sha256}, expected "
        f"{listed.sha256}: the list has changed; check it before you put its checksum into the file"
    )


def _expected_list(listed: ListFile, target: Path) -> FetchedList | None:
    """The fetched list, or None if its checksum is wrong."""
    fetched = _describe(listed, target)
    return fetched if listed.sha256 in (None, fetched.sha256) else None


def _describe(listed: ListFile, target: Path) -> FetchedList:
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FetchedList(listed.address, target, digest, target.stat().st_size, listed.sha256 is not None)


def _fetch(file: Path, listed: ListFile, part: Path) -> None:
    """Fetch a list into `part`; resumes an interrupted one only if a checksum can detect a mismatch."""
    if listed.sha256 is None:
        part.unlink(missing_ok=True)
    deadline = time.monotonic() + LIST_SECONDS
    for attempt in range(TRIES):
        try:
            with open(part, "ab", opener=_no_link) as temporary_path:
                _request(file, listed, temporary_path, deadline)
            return
        except _TemporaryFailure as failure:
            if attempt + 1 == TRIES or time.monotonic() + failure.pause > deadline:
                raise EarshotError(
                    f"{file}: {listed.address} cannot be fetched ({failure}); run again later, or get the "
                    "list by other means and set corpus.manifest to it"
                ) from None
            time.sleep(max(failure.pause, PAUSE_SECONDS * 2**attempt))


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


class _TemporaryFailure(Exception):
    """A temporary failure, and the seconds to wait before the next try."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


def _request(file: Path, listed: ListFile, temporary_path: BinaryIO, deadline: float) -> None:
    """Request the missing bytes; raises _TemporaryFailure, or EarshotError for a permanent failure."""
    have = temporary_path.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.Session() as session:
        session.max_redirects = REDIRECTS
        for prefix in ("http://", "https://"):
            session.mount(prefix, _CheckedAdapter(site_of(listed.address)))
        if proxy := settings().proxy:
            session.proxies.update(dict.fromkeys(("http", "https"), proxy))
        try:
            with session.get(
                listed.address,
                headers=headers,
                stream=True,
                timeout=READ_TIMEOUT_SECONDS,
                allow_redirects=listed.sha256 is not None,  # only a checksum shows whether it leads to the same list
            ) as response:
                if response.status_code in (200, 416):  # the whole list; or the list is shorter than this file
                    temporary_path.truncate(0)
                _check_status(file, listed, response)
                _save(file, listed, response, temporary_path, deadline)
        except (requests.TooManyRedirects, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            why = str(error)[:200]
            raise EarshotError(
                f"{file}: {listed.address} cannot be requested ({why}); correct the address in the file"
            ) from None
        except Refusal as refusal:
            raise EarshotError(
                f"{file}: {listed.address} cannot be requested ({refusal.detail}); correct the address in the file"
            ) from None
        except requests.RequestException as error:
            raise _TemporaryFailure(str(error)[:200]) from None


class _CheckedAdapter(requests.adapters.HTTPAdapter):
    """An adapter that requests the site of a list, and public hosts to which it redirects."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.listed = frozenset({site})
        guard(self, self.listed)

    def send(self, request: requests.PreparedRequest, *how: Any, **more: Any) -> requests.Response:
        """Send one request or redirect."""
        check_reachable(request.url or "", self.listed)
        return super().send(request, *how, **more)


def _check_status(file: Path, listed: ListFile, response: requests.Response) -> None:
    status = response.status_code
    if status in (408, 416, 429) or status >= 500:
        now = time.time()
        until = named_time(response.headers.get("Retry-After"), now) or now
        raise _TemporaryFailure(f"it answers {status}", min(until - now, MAX_PAUSE_SECONDS))
    if response.is_redirect:
        raise EarshotError(
            f"{file}: {listed.address} redirects to {response.headers['Location'][:200]}; without a checksum no "
            "redirect is followed: check that address, and put it or the checksum into the file"
        )
    if status not in (200, 206):
        raise EarshotError(
            f"{file}: {listed.address} answers {status}; get the list by other means and set corpus.manifest to it"
        )


def _save(file: Path, listed: ListFile, response: requests.Response, temporary_path: BinaryIO, deadline: float) -> None:
    max_bytes = listed.bytes or LIST_BYTES
    for chunk in response.iter_content(CHUNK_BYTES):
        if temporary_path.tell() + len(chunk) > max_bytes:
            temporary_path.truncate(0)
            raise EarshotError(
                f"{file}: {listed.address} gives more than {max_bytes:,} bytes, so it is another list; check it"
            )
        temporary_path.write(chunk)
        if time.monotonic() > deadline:
            raise EarshotError(f"{file}: {listed.address} took more than {LIST_SECONDS:g} s; run again to continue")
