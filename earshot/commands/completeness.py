"""How many of the requested clips exist at the end, by split and class, the worst first, and why the others do not."""

import csv
import io
from dataclasses import astuple
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.csv_files import read_csv, write_csv
from earshot.core.errors import EarshotError
from earshot.core.messages import for_output
from earshot.core.yaml_files import flatten, read_yaml
from earshot.corpus.completeness import ALL, EVERY_CLIP
from earshot.results.clip_outcomes import CLIPS, SCENES, ClipOutcome, clip_outcomes, ignored_files
from earshot.results.clip_outcomes import COLUMNS as COLUMNS_OF_CLIPS
from earshot.results.runs import read_metrics

COLUMNS = ("split", "class", "requested", "kept", "share_kept", "pending", "refused")
REFUSED = "refused_"
IGNORED = "ignored"  # the status of files that are no clips


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
    if ignored := ignored_files(root):
        lines += ["", "files that are no clips"]
        lines += [f"  {each.kind:<28.28}{each.files:>24,}  the first is {each.first}" for each in ignored]
    name = read_metrics(root, "extract").get("clips_hash")
    return "\n".join([*lines, *(["", f"The list of clips: {name}"] if name else [])])


def clips_csv(root: Path) -> str:
    """A CSV file with a row for every clip: the rows of the report's page of clips, and those of the kept clips.

    Below them is a row for each kind of files that are no clips: its reason is the suffix, its source the first file.

    Raises EarshotError if no stage has written a ledger.
    """
    params = root / "params.yaml"
    corpus = dict(flatten(read_yaml(params))).get("corpus.clips", CLIPS) if params.exists() else CLIPS
    rows = [*clip_outcomes(root, corpus == CLIPS)]
    for each in ignored_files(root):
        rows.append(ClipOutcome("", each.first, "extract", IGNORED, each.kind, f"{each.files} files"))
    if not rows:
        raise EarshotError(f"{root / SCENES}: holds no ledger of clips; run the stage extract")
    text = io.StringIO()
    write_csv(text, COLUMNS_OF_CLIPS, (astuple(row) for row in rows))
    return text.getvalue().rstrip()


def _line(name: str, row: dict[str, str]) -> str:
    """A name, its kept and requested clips, and the reasons for the others, most frequent first."""
    counts = {key.removeprefix(REFUSED): int(value) for key, value in row.items() if key.startswith(REFUSED)}
    counts |= {"pending": int(row["pending"])}
    reasons = [f"{count:,} {key}" for key, count in sorted(counts.items(), key=lambda item: -item[1]) if count]
    kept = f"{int(row['kept']):,} of {int(row['requested']):,}"
    return f"  {for_output(name):<28.28}{kept:>24} {float(row['share_kept']):>7.1%}  {', '.join(reasons)}".rstrip()


@click.command()
@options.root
@click.option("--csv", "as_csv", is_flag=True, help="Write a row for every clip instead: status, reason, measurements.")
@click.option("--worst", type=int, default=20, metavar="N", help="How many classes are printed (default: 20).")
def command(root: Path, as_csv: bool, worst: int) -> None:
    """Print how many of the requested clips exist, by split and class, the worst class first, and why others do not.

    Reads metrics/completeness.csv and metrics/extract.json, which the stage extract writes.

    \b
    Examples:
      earshot completeness
      earshot completeness --worst 100
      earshot completeness --csv > clips.csv
    """
    echo(clips_csv(root) if as_csv else report(root, worst))
