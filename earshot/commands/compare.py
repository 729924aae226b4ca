"""The report of two or more runs side by side: their scores with differences, what differs between them, every page.

    python -m earshot.commands.compare main fifteen
    python -m earshot.commands.compare --experiments randy-dent sappy-fils --output report-compare
    python -m earshot.commands.compare . --folder .earshot/rows/owens-cluster-0

A run is a branch, a tag or a commit; "." is the workspace; experiments are named as `dvc exp show` names them; a folder
holds params.yaml and metrics/. Parameters and metrics of a revision come from Git, its exhibits from DVC's cache: where
they are not there, the pages say so, and the scores are compared all the same.
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
STYLE = "report.css"  # which every report has


def sources(options: argparse.Namespace, scratch: Path) -> list[Source]:
    """The runs that the command line names, in its order; what comes from a revision is put below `scratch`.

    Raises EarshotError where one cannot be read, and for fewer than two.
    """
    found: list[Source] = []
    for name in options.runs:
        found.append(
            folder_source(options.root, "workspace")
            if name == WORKSPACE
            else revision_source(options.root, name, name, scratch / f"run{len(found)}")
        )
    for name in options.experiments:
        found.append(experiment_source(options.root, name, scratch / f"run{len(found)}"))
    found += [folder_source(folder, str(folder)) for folder in options.folder]
    if len(found) < 2:
        raise EarshotError(f"{len(found)} run named, wanted two or more, such as: main fifteen; '.' is the workspace")
    displays = registered_displays()
    return [replace(source, known=displays) for source in found]


def check_output(folder: Path) -> None:
    """Raise EarshotError where a folder holds something else than a report, which would be replaced."""
    if folder.exists() and not (folder.is_dir() and ((folder / STYLE).exists() or not any(folder.iterdir()))):
        raise EarshotError(f"{folder}: holds something else than a report; name another folder with --output")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m earshot.commands.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("runs", nargs="*", default=[], metavar="run", help="branches, tags or commits; '.' is the workspace")
    add("--experiments", nargs="+", default=[], metavar="NAME", help="DVC experiments too")
    add("--folder", type=Path, nargs="+", default=[], metavar="DIR", help="folders of runs too")
    add("--root", type=Path, default=Path("."), metavar="DIR", help="the repository")
    add("--output", type=Path, default=Path("report-compare"), metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        check_output(options.output)
        with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
            found = sources(options, Path(scratch))
            site = write_report(found, Path(scratch) / "report")
            link_tree(Path(scratch) / "report", options.output)
    except EarshotError as error:
        sys.exit(f"compare: {error}")
    for source in found:
        if source.absent:
            print(f"{source.name}: {source.absent}")
    print(f"{options.output / START}: {len(found)} runs, {site}")


if __name__ == "__main__":
    main()
