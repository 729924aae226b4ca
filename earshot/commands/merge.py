"""Join the parts of a list that several machines have downloaded."""

import tempfile
from pathlib import Path

import click

from earshot.commands import options
from earshot.core.errors import EarshotError
from earshot.core.files import link_tree
from earshot.download.merging import merge_parts, summary


@click.command()
@click.argument("parts", nargs=-1, required=True, type=options.FOLDER, metavar="PART...")
@options.output("data/clips", "The folder of clips")
def command(parts: tuple[Path, ...], output: Path) -> None:
    """Join the folders data/clips that several machines have downloaded, each with its corpus.select.part.

    Checks that all parts are there, that they are of the same list, and that no clip is in two of them. The clips are
    linked where possible, else copied. Set corpus.select.part=1/1 afterwards: the stage download then keeps them all.

    \b
    Examples:
      earshot merge one/data/clips two/data/clips three/data/clips --output data/clips
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise EarshotError(f"{output}: exists, expected a new folder; remove it, or name another with --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".earshot-merge-", dir=output.parent) as scratch:
        merged = Path(scratch) / "clips"
        counts = merge_parts(parts, merged)
        link_tree(merged, output)
    click.echo(summary(counts, output))
