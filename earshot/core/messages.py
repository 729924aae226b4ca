"""Messages as people read them: one printable line, of a bounded length, without secrets."""

import re

MESSAGE_LENGTH = 2000  # characters of a message; a stranger's file may hold a name of millions
MESSAGE_END = 400  # of these, characters of its end, which says what to do

USER = re.compile(r"(?<=//)[^\s/?#<>]*@")  # user:password@ in an address
# A parameter of a query whose name says that its value is a secret: token, sig, X-Amz-Signature, api_key. The pattern
# first looks ahead to the end of the name and the first character of the value, and cannot fail after that: its time
# grows with the length of a text alone.
SECRET = re.compile(
    r"([?&;#](?=[^?=&;#\s]*=[^&;#\s'\"<>])(?:"
    r"[^?=&;#\s]*(?:token|secret|passw|passphrase|signature|credential|session|api-?_?key|jwt|hmac|hdn)[^?=&;#\s]*"
    r"|(?:[^?=&;#\s]*[-_.])?(?:key|l?sig|pw|pwd|pass|auth|authorization|sid|policy)(?:[-_.][^?=&;#\s]*)?"
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


def shortened(text: str) -> str:
    """A text, without the middle of one that is longer than MESSAGE_LENGTH."""
    if len(text) <= MESSAGE_LENGTH:
        return text
    return f"{text[: MESSAGE_LENGTH - MESSAGE_END]} ... {text[-MESSAGE_END:]}"


def console_line(text: object) -> str:
    """A text as a line of the console: as `for_output`, and `shortened`."""
    return shortened(for_output(text))


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return next(iter(str(error).splitlines()), type(error).__name__)
