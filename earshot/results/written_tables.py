"""A table of text as LaTeX (booktabs), Markdown and CSV, with a note on what made it."""

import io
import re
from collections.abc import Callable, Sequence

from earshot.core.csv_files import write_csv

Rows = Sequence[Sequence[str]]
SPECIAL = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {character: f"\\{character}" for character in "&%$#_{}"}


def as_latex(columns: Sequence[str], rows: Rows, note: str) -> str:
    """A table environment that requires the package booktabs."""
    head, *body = (f"{' & '.join(map(latex_text, row))} \\\\\n" for row in (columns, *rows))
    frame = (
        f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}\n\\toprule\n{head}\\midrule\n{''.join(body)}\\bottomrule\n"
    )
    return f"\\begin{{table}}\n\\centering\n{frame}\\end{{tabular}}\n\\caption{{{latex_text(note)}}}\n\\end{{table}}\n"


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return re.sub(r"[\\±–~^&%$#_{}]", lambda match: SPECIAL[match[0]], text)


def as_markdown(columns: Sequence[str], rows: Rows, note: str) -> str:
    """A table of Markdown with its note below."""
    lines = [columns, ["---", *("---:" for _ in columns[1:])], *rows]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in lines)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in escaped), "", note, ""])


def as_csv(columns: Sequence[str], rows: Rows, note: str) -> str:
    """The table as CSV; the note stands in a last row of its own."""
    text = io.StringIO()
    write_csv(text, list(columns), [*rows, [note, *("" for _ in columns[1:])]])
    return text.getvalue()


FORMATS: Sequence[tuple[str, Callable[[Sequence[str], Rows, str], str]]] = (
    ("tex", as_latex),
    ("md", as_markdown),
    ("csv", as_csv),
)
