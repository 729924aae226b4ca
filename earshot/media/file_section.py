"""Opening a file of a user's corpus, and reading a part of it like a file of its own."""

import os
from pathlib import Path
from typing import BinaryIO

from earshot.core.untrusted import NotRegular, open_without_links
from earshot.corpus.ledger import Refusal


def open_or_refuse(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises Refusal for a link, a device or a folder (unsupported), and for a file that cannot be opened (unreadable).
    """
    try:
        return open_without_links(path)
    except NotRegular as error:
        raise Refusal("unsupported", str(error.strerror)) from error
    except OSError as error:
        raise Refusal("unreadable", error.strerror or "cannot be opened") from error


class FileSection:
    """A part of an open file, read and sought like a file of its own."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self.descriptor, self.offset, self.size, self.position = descriptor, offset, size, 0

    def read(self, count: int = -1) -> bytes:
        left = max(self.size - self.position, 0)
        data = os.pread(self.descriptor, left if count < 0 else min(count, left), self.offset + self.position)
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self.position = base + offset
        return self.position

    def tell(self) -> int:
        return self.position
