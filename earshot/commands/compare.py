"""Compare two or more runs in one report: their scores and differences, their parameters, and every page.

A run is a branch, a tag or a commit; "." is the workspace; experiments are named as `dvc exp show` names them; a folder
holds params.yaml and metrics/. Parameters and metrics of a revision come from Git, its exhibits from DVC's cache: where
they are not there, the pages say so, and the scores are compared all the same.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.core.files import link_tree
from earshot.report.build import START, write_report
from earshot.report.revisions import experiment_source, folder_source, revision_source
from earshot.report.sources import Source
from earshot.results.score_tables import registered_displays

WORKSPACE = "."
STYLE = "report.css"  # in every report


def sources(
    root: Path, runs: Sequence[str], experiments: Sequence[str], folders: Sequence[Path], scratch: Path
) -> list[Source]:
    """The runs that the command line names, in its order; what comes from a revision is put below `scratch`.

    Raises EarshotError if one cannot be read, or if there are fewer than two.
    """
    listed: list[Source] = []
    for name in runs:
        listed.append(
            folder_source(root, "workspace")
            if name == WORKSPACE
            else revision_source(root, name, name, scratch / f"run{len(listed)}")
        )
    for name in experiments:
        listed.append(experiment_source(root, name, scratch / f"run{len(listed)}"))
    listed += [folder_source(folder, str(folder)) for folder in folders]
    if len(listed) < 2:
        raise EarshotError(
            f"{len(listed)} run given, expected two or more, such as: main fifteen ('.' is the workspace)"
        )
    displays = registered_displays()
    return [replace(source, known=displays) for source in listed]


def check_output(folder: Path) -> None:
    """Raise EarshotError if the output folder exists and does not hold a report."""
    if folder.exists() and not (folder.is_dir() and ((folder / STYLE).exists() or not any(folder.iterdir()))):
        raise EarshotError(
            f"{folder}: does not hold a report, so it is not replaced; give another folder with --output"
        )


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@options.experiments
@options.folders
@options.root
@options.output("report-compare", "The report")
def command(
    runs: tuple[str, ...], experiments: tuple[str, ...], folders: tuple[Path, ...], root: Path, output: Path
) -> None:
    """Write one report of two or more runs side by side: scores with differences, what differs, every page.

    A RUN is a branch, a tag or a commit; "." is the workspace. Name experiments as `dvc exp show` does. Exhibits of a
    revision come from DVC's cache. Where they are not there, the pages say so; the scores are compared all the same.

    \b
    Examples:
      earshot compare main fifteen
      earshot compare . --experiment randy-dent --experiment sappy-fils --output report-compare
      earshot compare . --folder .earshot/rows/owens-cluster-0
    """
    check_output(output)
    with tempfile.TemporaryDirectory(prefix="earshot-") as scratch:
        displayed = sources(root, runs, experiments, folders, Path(scratch))
        site = write_report(displayed, Path(scratch) / "report")
        link_tree(Path(scratch) / "report", output)
    for source in displayed:
        if source.absent:
            echo(f"{source.name}: {source.absent}")
    echo(f"{output / START}: {len(displayed)} runs, {site}")
