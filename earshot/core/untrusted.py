"""Files from strangers: how one is opened, and how much of anything it may hold.

Whatever reads such a file looks at its header first and refuses what exceeds these limits. Formats whose parsers cannot
be trusted to stay within memory or time are read in a child process (`earshot.core.subprocess_pool`).
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

FOLDER = os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW | getattr(os, "O_PATH", os.O_RDONLY)
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK

MAX_IMAGE_PIXELS = 50_000_000  # of an image file: 8000 x 6000, of which a copy in RGB takes 150 MB
SOUND_RATES = range(4_000, 192_001)  # Hz; a lower rate holds no texture and grows manyfold when it is resampled
MAX_SOUND_SECONDS = 600
MAX_SOUND_VALUES = 2 * 48_000 * MAX_SOUND_SECONDS  # of all channels; 230 MB as float32
MAX_TEXT_LENGTH = 10_000  # characters of a cell, a group or an annotation
MAX_NAME_LENGTH = 1_000  # characters of the name of a member of a tar
MAX_DOCUMENT_BYTES = 64 << 20  # of an image, a JSON file or another that is read whole


class NotRegular(OSError):
    """A pipe, a device, a folder or a link in the place of a file."""


def is_file(path: Path) -> bool:
    """Whether there is such a file: no for a name that none can have, such as one of a thousand letters.

    For these `Path.is_file` raises OSError before Python 3.14.
    """
    return os.path.isfile(path)


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading that must be a regular one: opening a pipe would wait for ever.

    Raises NotRegular for anything else, and OSError where it cannot be opened.
    """
    return _regular(os.open(path, READ), path)


def open_without_links(path: Path) -> BinaryIO:
    """Open a regular file for reading, if no part of its path is a link: someone may have put one there since.

    Raises NotRegular for a link or anything else that is not a file, and OSError where it cannot be opened.
    """
    folder = os.open("/", FOLDER)
    try:
        for name in path.absolute().parts[1:-1]:
            inner = os.open(name, FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        return _regular(os.open(path.name, READ | os.O_NOFOLLOW, dir_fd=folder), path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise NotRegular(error.errno, "a link or not a regular file", str(path)) from None
        raise
    finally:
        os.close(folder)


def _regular(descriptor: int, path: Path) -> BinaryIO:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def read_document(path: Path, most: int = MAX_DOCUMENT_BYTES) -> bytes:
    """The bytes of a regular file that must not have more than `most`.

    Raises OSError for a larger file, and as `open_regular` does.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger, expected at most {most:,} bytes", str(path))
    return data


def check_sound(frames: int, channels: int, rate: int) -> None:
    """Raise ValueError for a sound whose header states a rate or a length that no recording for us has."""
    if rate not in SOUND_RATES:
        raise ValueError(f"{rate} samples a second, expected {SOUND_RATES[0]:,} to {SOUND_RATES[-1]:,}")
    if frames > MAX_SOUND_SECONDS * rate:
        raise ValueError(f"{frames / rate:,.0f} s, expected at most {MAX_SOUND_SECONDS}")
    if frames * channels > MAX_SOUND_VALUES:
        raise ValueError(f"{frames:,} samples in {channels} channels, expected at most {MAX_SOUND_VALUES:,} in all")


def check_text(text: str) -> str:
    """The text; raises ValueError where it is longer than any cell, group or annotation may be."""
    if len(text) > MAX_TEXT_LENGTH:
        raise ValueError(f"a text of {len(text):,} characters, expected at most {MAX_TEXT_LENGTH:,}")
    return text
