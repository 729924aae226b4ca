"""The one exception that a user sees as a line instead of a traceback."""


class EarshotError(Exception):
    """A user's mistake or a fault of the surroundings, told in one line.

    The message names the file, the value found, the value wanted and what to do.
    """
