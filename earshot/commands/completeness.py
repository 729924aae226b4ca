"""How many of the requested clips exist at the end, by split and class, the worst first, and why the others do not."""

import csv
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.csv_files import read_csv
from earshot.core.errors import EarshotError
from earshot.core.text import for_output
from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.results.runs import read_metrics

COLUMNS = ("split", "class", "requested", "kept", "share_kept", "pending", "refused")
REFUSED = "refused_"


def read_completeness(file: Path) -> list[dict[str, str]]:
    """The rows of metrics/completeness.csv.

    Raises EarshotError if the file is missing or is another table.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(read_csv(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EarshotError(f"{file}: cannot be read ({error}); run the stage extract") from None
    columns = tuple(rows[0])[: len(COLUMNS)] if rows else ()
    if columns != COLUMNS:
        raise EarshotError(
            f"{file}: begins with the columns {columns}, expected {COLUMNS}; run the stage extract again"
        )
    return rows


def report(root: Path, worst: int) -> str:
    """The report as text: one line for each split, then the classes with the smallest share of kept clips.

    Raises EarshotError as `read_completeness` does.
    """
    rows = read_completeness(root / "metrics" / "completeness.csv")
    splits = [row for row in rows if row["class"] == EVERY_CLIP]
    classes = [row for row in rows if row["class"] != EVERY_CLIP and row["split"] == ALL]
    classes.sort(key=lambda row: (float(row["share_kept"]), -int(row["requested"]), row["class"]))
    lines = ["split", *(_line(row["split"], row) for row in splits)]
    if classes:
        lines += ["", f"class ({min(worst, len(classes))} of {len(classes)})"]
        lines += [_line(row["class"], row) for row in classes[:worst]]
    name = read_metrics(root, "extract").get("clips_hash")
    return "\n".join([*lines, *(["", f"The list of clips: {name}"] if name else [])])


def _line(name: str, row: dict[str, str]) -> str:
    """A name, its kept and requested clips, and the reasons for the others, most frequent first."""
    counts = {key.removeprefix(REFUSED): int(value) for key, value in row.items() if key.startswith(REFUSED)}
    counts |= {"pending": int(row["pending"])}
    reasons = [f"{count:,} {key}" for key, count in sorted(counts.items(), key=lambda item: -item[1]) if count]
    kept = f"{int(row['kept']):,} of {int(row['requested']):,}"
    return f"  {for_output(name):<28.28}{kept:>24} {float(row['share_kept']):>7.1%}  {', '.join(reasons)}".rstrip()


@click.command()
@options.root
@click.option("--worst", type=int, default=20, metavar="N", help="How many classes are printed (default: 20).")
def command(root: Path, worst: int) -> None:
    """Print how many of the requested clips exist, by split and class, the worst class first, and why others do not.

    Reads metrics/completeness.csv and metrics/extract.json, which the stage extract writes.

    \b
    Examples:
      earshot completeness
      earshot completeness --worst 100
    """
    echo(report(root, worst))
