"""Compare two or more runs in one report: their scores and differences, their parameters, and every page.

    python -m earshot.commands.compare main fifteen
    python -m earshot.commands.compare --experiments randy-dent sappy-fils --output report-compare
    python -m earshot.commands.compare . --folder .earshot/rows/owens-cluster-0

A run is a branch, a tag or a commit; "." is the workspace. Experiments have the names that `dvc exp show` prints. A
folder holds params.yaml and metrics/. Parameters and metrics of a revision come from Git, its exhibits from DVC's
cache; if the cache lacks them, the pages say so and still compare the scores.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.files import link_tree
from earshot.report.build import START, write_report
from earshot.report.revisions import experiment_source, folder_source, revision_source
from earshot.report.sources import Source
from earshot.results.score_tables import registered_displays

WORKSPACE = "."
STYLE = "report.css"  # in every report


def sources(options: argparse.Namespace, scratch: Path) -> list[Source]:
    """The runs on the command line, in order; files of a revision are put below `scratch`.

    Raises EarshotError if one cannot be read, or if there are fewer than two.
    """
    runs: list[Source] = []
    for name in options.runs:
        runs.append(
            folder_source(options.root, "workspace")
            if name == WORKSPACE
            else revision_source(options.root, name, name, scratch / f"run{len(runs)}")
        )
    for name in options.experiments:
        runs.append(experiment_source(options.root, name, scratch / f"run{len(runs)}"))
    runs += [folder_source(folder, str(folder)) for folder in options.folder]
    if len(runs) < 2:
        raise EarshotError(f"{len(runs)} run given, expected two or more, such as: main fifteen ('.' is the workspace)")
    displays = registered_displays()
    return [replace(source, known=displays) for source in runs]


def check_output(folder: Path) -> None:
    """Raise EarshotError if the output folder exists and does not hold a report."""
    if folder.exists() and not (folder.is_dir() and ((folder / STYLE).exists() or not any(folder.iterdir()))):
        raise EarshotError(
            f"{folder}: does not hold a report, so it is not replaced; give another folder with --output"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="*", default=[], metavar="run", help="branches, tags or commits; '.' is the workspace")
    add("--experiments", nargs="+", default=[], metavar="NAME", help="add DVC experiments")
    add("--folder", type=Path, nargs="+", default=[], metavar="DIR", help="add folders of runs")
    add("--root", type=Path, default=Path("."), metavar="DIR", help="the repository")
    add("--output", type=Path, default=Path("report-compare"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        check_output(options.output)
        with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
            runs = sources(options, Path(scratch))
            site = write_report(runs, Path(scratch) / "report")
            link_tree(Path(scratch) / "report", options.output)
    except EarshotError as error:
        sys.exit(f"compare: {error}")
    for source in runs:
        if source.absent:
            print(f"{source.name}: {source.absent}")
    print(f"{options.output / START}: {len(runs)} runs, {site}")


if __name__ == "__main__":
    main()
