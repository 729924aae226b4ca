"""How far a download is, also while it runs."""

from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.run import run_stage


@click.command()
@options.root
@options.params
@options.overrides
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(root: Path, params: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print how far a download is, also while it runs: clips kept, refused and pending, clips an hour and hours left.

    Give the parameters that the download was started with. Run it in the folder of the repository.

    \b
    Examples:
      earshot status
      earshot status --json
      earshot status --set corpus.manifest=manifests/audioset-balanced.json
    """
    changes = [word for override in overrides for word in ("--set", override)]
    words = ["--status", *(["--json"] if as_json else []), "--root", str(root), "--params", str(params), *changes]
    run_stage("download", words)
