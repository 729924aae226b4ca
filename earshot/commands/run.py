"""Run one stage, as `python -m stages.<stage>` does."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from earshot.core.errors import EarshotError

STAGES = (
    "sample",
    "download",
    "extract",
    "describe",
    "label",
    "pretrain",
    "correspond",
    "evaluate",
    "explain",
    "report",
)  # in the order of the pipeline


def run_stage(stage: str, arguments: Sequence[str]) -> None:
    """Replace this process by the script of a stage.

    Raises EarshotError outside a copy of the repository, which has the scripts.
    """
    script = Path("stages") / f"{stage}.py"
    if not script.is_file():
        raise EarshotError(f"{script}: no such file; run this in the folder of the repository, where stages/ is")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"stages.{stage}", *arguments])


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
    short_help="Run one stage without DVC.",
)
@click.argument("stage", type=click.Choice(STAGES))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF THE STAGE]")
def command(stage: str, arguments: tuple[str, ...]) -> None:
    """Run one stage without DVC: it always runs, and DVC records nothing. `dvc repro` runs what has changed.

    Run it in the folder of the repository. The options are those of `python -m stages.STAGE`.

    \b
    Examples:
      earshot run describe --help
      earshot run describe --set descriptor=mfcc
      earshot run evaluate --benchmark voc --set evaluate.voc.data_dir=../VOCdevkit
      earshot run pretrain --root elsewhere --params elsewhere/params.yaml
    """
    run_stage(stage, arguments)
