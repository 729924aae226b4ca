"""The one exception that a user sees as a line instead of a traceback."""


class EarshotError(Exception):
    """A user's mistake, or a fault of the machine, described in one line.

    The message names the file or parameter, the value found, the value expected and what to do.
    """
