"""CSV files that programs read and people open: no cell is a formula to a spreadsheet."""

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TextIO

FORMULA = re.compile(r"'*[=+@\t\r-]")  # how a cell begins that a spreadsheet would compute
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def write_csv(file: TextIO, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
    """Write a table; a text that a spreadsheet would compute gets an apostrophe before it."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(_to_cell, row) for row in rows)


def read_csv(lines: Iterable[str], columns: Sequence[str] | None = None) -> Iterator[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, below its header unless `columns` are given.

    A row that is too long or too short is as `csv.DictReader` has it.
    """
    for row in csv.DictReader(lines, columns):
        yield {name: _from_cell(value) for name, value in row.items()}


def _to_cell(value: Any) -> Any:
    is_formula = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def _from_cell(value: Any) -> Any:
    is_escaped = isinstance(value, str) and value.startswith("'") and FORMULA.match(value)
    return value[1:] if is_escaped else value
