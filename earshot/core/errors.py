"""The one exception that a user sees as a line instead of a traceback."""

from earshot.core.messages import shortened, without_secrets


class EarshotError(Exception):
    """A user's mistake, or a fault of the machine, described in one line.

    The message names the file or parameter, the value found, the value expected and what to do.
    Secrets and the middle of a very long one are left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(without_secrets(message)))
