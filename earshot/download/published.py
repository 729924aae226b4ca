"""Published lists by name: a small file says where a list is had and what its checksum is, and stands for the manifest.

    {"about": "...", "lists": [{"address": "https://...", "sha256": "...", "bytes": 1211931}]}

`lists` are read one after another. `starts`, of AVE alone, are the lists of AudioSet that say where its clips begin.
The lists wait in a folder of their own, so that they are fetched once. What comes is believed only when it has the
checksum; where none is known (null), the one that was found is told and recorded, to be put into the file.
"""

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO
from urllib.parse import unquote, urlsplit

import requests
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.corpus.ave import read_ave
from earshot.corpus.manifest import ManifestRow, manifest_file, numbered_rows
from earshot.download.rate_limit import named_time
from earshot.pipeline.settings import settings

SUFFIX = ".json"
LIST_BYTES = 1 << 30  # the most that a list of unknown length may have; AudioSet's longest has some 100 MB
FILE_BYTES = 1 << 20  # the most that the file which names the lists may have
SILENCE_SECONDS = 30.0  # that a server may keep quiet
LIST_SECONDS = 1800.0  # that a list may take, however slowly it drips
TRIES = 4
PAUSE_SECONDS = 1.0  # before the second try, then twice as long each time
LONGEST_PAUSE = 60.0  # seconds that a server may ask to wait, here
REDIRECTS = 5
PIECE = 1 << 16  # bytes


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ListFile(_Strict):
    """One list: its address, and the checksum and length that it must have where they are known."""

    address: Annotated[str, Field(pattern=r"^https?://[^\s/]+/")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    bytes: Annotated[int, Field(ge=1)] | None


class Published(_Strict):
    """What a file under manifests/ says."""

    about: str
    lists: Annotated[tuple[ListFile, ...], Field(min_length=1, strict=False)]
    starts: Annotated[tuple[ListFile, ...], Field(strict=False)] = ()


@dataclass(frozen=True)
class Found:
    """A list that was fetched: where it came from, where it is, and what it turned out to be."""

    address: str
    file: Path
    sha256: str
    bytes: int
    is_known: bool  # by its checksum


@dataclass(frozen=True)
class Manifest:
    """The manifest that a run works from: one file, or the lists that a file of published lists names.

    `file` is what the user named, for messages, and local paths start from its folder.
    """

    file: Path
    lists: tuple[Found, ...] = ()
    starts: tuple[Found, ...] = ()

    @property
    def is_published(self) -> bool:
        """Whether the rows are somebody else's list, which its user cannot mend."""
        return bool(self.lists)

    def rows(self) -> Iterator[tuple[int, ManifestRow]]:
        """All rows in order, each with its line.

        Raises EarshotError as `read_manifest` does.
        """
        if not self.is_published:
            yield from numbered_rows(self.file)
        for found in self.lists:
            if self.starts:
                yield from read_ave(found.file, [start.file for start in self.starts])
            else:
                yield from numbered_rows(found.file)

    def unknown(self) -> list[str]:
        """What to tell of each list whose checksum is not in the file."""
        return [
            f"{self.file}: no checksum is known of {found.address}; {found.bytes:,} bytes came with the sha256 "
            f"{found.sha256}: look at {found.file}, and put both into the file, so that no other list is taken for it"
            for found in (*self.lists, *self.starts)
            if not found.is_known
        ]

    def write_lists(self, folder: Path) -> None:
        """Put address, sha256 and length of each list beside the clips, as lists.json; nothing for a file."""
        lists = [
            {"address": found.address, "sha256": found.sha256, "bytes": found.bytes}
            for found in (*self.lists, *self.starts)
        ]
        if lists:
            with write_atomically(folder / "lists.json") as temporary_path:
                temporary_path.write_text(json.dumps(lists, indent=2) + "\n")


def open_manifest(path: Path, folder: Path) -> Manifest:
    """The manifest at a path; lists that it only names are fetched into `folder`, once.

    Raises EarshotError where there is none, for a file of published lists that is none, and for a list that cannot be
    had or is not the one that is named.
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


def read_published(file: Path) -> Published:
    """What a file of published lists says.

    Raises EarshotError for a file that is none, naming the field.
    """
    if file.stat().st_size > FILE_BYTES:
        raise EarshotError(f"{file}: larger than {FILE_BYTES:,} bytes; wanted a file such as manifests/ave.json")
    try:
        return Published.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise EarshotError(f"{file}: {field}: {first['msg']}; compare with manifests/audioset-balanced.json") from None


def fetch_list(file: Path, listed: ListFile, folder: Path) -> Found:
    """A list, fetched into `folder` unless it is there; `file` is what names it.

    A list with a checksum is taken up where it broke off. One without is kept as it came first: remove it to have it
    fetched again.

    Raises EarshotError where it cannot be had, or is not the one that is named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    last = re.sub(r"[^\w.-]+", "-", unquote(PurePosixPath(urlsplit(listed.address).path).name), flags=re.ASCII)
    key = listed.sha256 or f"unknown-{hashlib.sha256(listed.address.encode()).hexdigest()}"
    target = folder / f"{key[:24]}-{last[-60:] or 'list'}"
    part = folder / f".{target.name}.part"
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may want the same list
        if target.is_file() and (kept := _found(listed, target)):
            return kept
        # What broke off may be of another list than the rest: only then a second try can end better.
        for _ in range(2 if part.exists() else 1):
            _fetch(file, listed, part)
            os.replace(part, target)
            if found := _found(listed, target):
                return found
            came = _look(listed, target)
            target.unlink()
    raise EarshotError(
        f"{file}: {listed.address} gave {came.bytes:,} bytes with the sha256 {came.sha256}, wanted {listed.sha256}: "
        "the list is another one now; look at it before you put its checksum into the file"
    )


def _found(listed: ListFile, target: Path) -> Found | None:
    """The list at hand, or None if it is not the one that is named."""
    found = _look(listed, target)
    return found if listed.sha256 in (None, found.sha256) else None


def _look(listed: ListFile, target: Path) -> Found:
    with open(target, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Found(listed.address, target, digest, target.stat().st_size, listed.sha256 is not None)


def _fetch(file: Path, listed: ListFile, part: Path) -> None:
    """All of a list into `part`, from where it broke off if its checksum would tell that the pieces do not fit."""
    if listed.sha256 is None:
        part.unlink(missing_ok=True)
    deadline = time.monotonic() + LIST_SECONDS
    for attempt in range(TRIES):
        try:
            with open(part, "ab") as temporary_path:
                _ask(file, listed, temporary_path, deadline)
            return
        except _Passing as passing:
            if attempt + 1 == TRIES or time.monotonic() + passing.pause > deadline:
                raise EarshotError(
                    f"{file}: {listed.address} cannot be fetched ({passing}); run again later, or have the list by "
                    "other means and name it as corpus.manifest"
                ) from None
            time.sleep(max(passing.pause, PAUSE_SECONDS * 2**attempt))


class _Passing(Exception):
    """A failure that may pass, and the seconds to wait before the next try."""

    def __init__(self, words: str, pause: float = 0.0) -> None:
        super().__init__(words)
        self.pause = pause


def _ask(file: Path, listed: ListFile, temporary_path: BinaryIO, deadline: float) -> None:
    """One request for what is missing; raises _Passing for what may pass, EarshotError for what does not."""
    have = temporary_path.tell()
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.Session() as session:
        session.max_redirects = REDIRECTS
        if proxy := settings().proxy:
            session.proxies.update(dict.fromkeys(("http", "https"), proxy))
        try:
            with session.get(listed.address, headers=headers, stream=True, timeout=SILENCE_SECONDS) as answer:
                if answer.status_code in (200, 416):  # the whole list; or less of it than is here
                    temporary_path.truncate(0)
                _check_status(file, listed, answer)
                _keep(file, listed, answer, temporary_path, deadline)
        except (requests.TooManyRedirects, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL) as error:
            why = str(error)[:200]
            raise EarshotError(f"{file}: {listed.address} leads nowhere ({why}); mend the address") from None
        except requests.RequestException as error:
            raise _Passing(str(error)[:200]) from None


def _check_status(file: Path, listed: ListFile, answer: requests.Response) -> None:
    status = answer.status_code
    if status in (408, 416, 429) or status >= 500:
        now = time.time()
        until = named_time(answer.headers.get("Retry-After"), now) or now
        raise _Passing(f"it answers {status}", min(until - now, LONGEST_PAUSE))
    if status not in (200, 206):
        raise EarshotError(
            f"{file}: {listed.address} answers {status}; have the list by other means and name it as corpus.manifest"
        )


def _keep(file: Path, listed: ListFile, answer: requests.Response, temporary_path: BinaryIO, deadline: float) -> None:
    most = listed.bytes or LIST_BYTES
    for piece in answer.iter_content(PIECE):
        if temporary_path.tell() + len(piece) > most:
            temporary_path.truncate(0)
            raise EarshotError(
                f"{file}: {listed.address} gives more than {most:,} bytes; it is another list now, or none: look at it"
            )
        temporary_path.write(piece)
        if time.monotonic() > deadline:
            raise EarshotError(f"{file}: {listed.address} took more than {LIST_SECONDS:g} s; run again and it goes on")
