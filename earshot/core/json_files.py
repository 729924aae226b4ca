"""JSON files: read one as an object, or raise an error of one line."""

import json
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text; raises ValueError for any other text, and for one that is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_json(path: Path, stage: str) -> dict[str, Any]:
    """The object in a JSON file that a stage writes.

    Raises EarshotError if the file is missing or damaged, or does not hold an object.
    """
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarshotError(
            f"{path}: cannot be read ({error.strerror}); run the stage {stage}, which writes it"
        ) from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run the stage {stage} again") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{path}: holds {values!r:.40}, expected an object; run the stage {stage} again")
    return values
