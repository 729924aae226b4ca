"""Text from outside: how to read it, and how to make it printable."""

from pathlib import Path

from earshot.core.errors import EarshotError


def printable(text: str) -> str:
    """Escape control characters and undecodable bytes with backslashes; the result is one line of valid UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_lines(file: Path, advice: str) -> list[str]:
    """The stripped lines of a published list; the first is line 1.

    Raises EarshotError, ending in `advice`, if the file cannot be read.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); {advice}") from None
