"""The files of a corpus that are no clips, counted by suffix, so that every input file is accounted for."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from earshot.core.csv_files import read_csv, write_csv
from earshot.core.errors import EarshotError
from earshot.core.files import run_again, write_atomically
from earshot.core.messages import for_output

FILE = "ignored.csv"  # beside the scenes; there is none if nothing was ignored


@dataclass(frozen=True)
class IgnoredFiles:
    """Files of one kind.

    Args:
        kind: their suffix, or words.
        files: their number.
        first: the name of the first.
    """

    kind: str
    files: int
    first: str


COLUMNS = tuple(field.name for field in fields(IgnoredFiles))


def write_ignored(folder: Path, kinds: Mapping[str, tuple[int, str]]) -> None:
    """Write the number of files and the name of the first, by kind, the most frequent first; no file for no kinds."""
    rows = [IgnoredFiles(for_output(kind), count, for_output(first)) for kind, (count, first) in kinds.items()]
    if not rows:
        return
    with write_atomically(folder / FILE) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        write_csv(file, COLUMNS, map(astuple, sorted(rows, key=lambda row: (-row.files, row.kind))))


def read_ignored(folder: Path) -> list[IgnoredFiles]:
    """What `write_ignored` wrote; empty if there is no file.

    Raises EarshotError for another table.
    """
    path = folder / FILE
    if not path.exists():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [IgnoredFiles(row["kind"], int(row["files"]), row["first"]) for row in read_csv(file)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EarshotError(f"{path}: cannot be read ({error!r:.100}); {run_again(path)}") from None
