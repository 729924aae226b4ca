"""Text of others, as it may be printed and stored."""


def printable(text: str) -> str:
    """The text with control characters and undecodable bytes as backslash escapes: always valid UTF-8, one line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
