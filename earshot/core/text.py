"""Text of others, as it may be printed and stored."""


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes as backslash escapes: always valid UTF-8, one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class where it has none."""
    return next(iter(str(error).splitlines()), type(error).__name__)
