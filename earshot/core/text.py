"""Text files from outside: their encoding, their separators, their lines."""

import codecs
import csv
from collections.abc import Callable
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.untrusted import open_regular

SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # of the columns of a table, the usual one first


def encoding_of(file: Path) -> str:
    """The encoding of a text file by its first bytes: UTF-16 with or without a byte order mark, else UTF-8.

    Raises OSError if the file cannot be read or is not a regular one.
    """
    with open_regular(file) as beginning:
        first = beginning.read(2)
    if first in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return "utf-16"
    if len(first) == 2 and 0 in first:  # an ASCII character in two bytes
        return "utf-16-le" if first[1] == 0 else "utf-16-be"
    return "utf-8-sig"


def separator_of(line: str, is_known: Callable[[list[str]], bool]) -> str:
    """The separator that divides the first line of a table into fields that `is_known` accepts, else a comma."""
    for separator in SEPARATORS:
        try:
            fields = next(csv.reader([line], delimiter=separator, skipinitialspace=True, strict=True), [])
        except csv.Error:
            continue
        if fields and is_known(fields):
            return separator
    return ","


def read_lines(file: Path, advice: str) -> list[str]:
    """The stripped lines of a published list; the first is line 1.

    Raises EarshotError, ending in `advice`, if the file cannot be read.
    """
    try:
        return [line.strip() for line in file.read_text(encoding=encoding_of(file)).split("\n")]
    except (OSError, UnicodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); {advice}") from None
