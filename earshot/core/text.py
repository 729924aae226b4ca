"""Text from outside: how to read it, and how to make it printable."""

import codecs
import csv
import re
from collections.abc import Callable
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.untrusted import open_regular

MESSAGE_LENGTH = 2000  # characters of a message; a stranger's file may hold a name of millions
MESSAGE_END = 400  # of these, characters of its end, which says what to do
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # of the columns of a table, the usual one first


USER = re.compile(r"(?<=//)[^\s/?#<>]*@")  # user:password@ in an address
# A parameter of a query whose name says that its value is a secret: token, sig, X-Amz-Signature, api_key.
SECRET = re.compile(
    r"([?&;#](?:amp;)?(?:"
    r"[^=&;#\s]*(?:token|secret|passw|passphrase|signature|credential|session|api-?_?key|jwt|hmac|hdn)[^=&;#\s]*"
    r"|(?:[^=&;#\s]*[-_.])?(?:key|l?sig|pw|pwd|pass|auth|authorization|sid|policy)(?:[-_.][^=&;#\s]*)?"
    r")=)[^&;#\s'\"<>]+",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes with backslashes; the result is one line of valid UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def without_secrets(text: str) -> str:
    """A text without the users and passwords of the addresses in it, and `...` for tokens in their queries."""
    return SECRET.sub(r"\1...", USER.sub("", text))


def for_output(text: object) -> str:
    """Any text as a line that may be printed and shared: printable, without secrets."""
    return printable(without_secrets(str(text)))


def console_line(text: object) -> str:
    """A text as a line of the console, as `for_output`; of a longer one than MESSAGE_LENGTH the middle is left out."""
    line = for_output(text)
    if len(line) <= MESSAGE_LENGTH:
        return line
    return f"{line[: MESSAGE_LENGTH - MESSAGE_END]} ... {line[-MESSAGE_END:]}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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
