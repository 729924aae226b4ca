"""Text of others: how it is read, and as it may be printed and stored."""

from pathlib import Path

from earshot.core.errors import EarshotError


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes as backslash escapes: always valid UTF-8, one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def read_lines(file: Path, advice: str) -> list[str]:
    """The lines of a list that others wrote, without white space at their ends; the first is line 1.

    Raises EarshotError, ending in `advice`, where the file cannot be read.
    """
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); {advice}") from None
