"""The stages of the pipeline, one standalone script each: `python -m stages.describe --help`."""

import sys
from types import TracebackType


def _end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Print one line for Ctrl-C while a script still imports its packages, which takes seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped; run again to continue", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = _end
