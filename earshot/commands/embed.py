"""Embeds files on the command line."""

from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.core.errors import EarshotError
from earshot.embedding.files import LEDGER, TABLE, EmbedTask, embed_files
from earshot.embedding.model import HOP_S

HOURS = 12.0


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE_OR_DIR...")
@options.model("A folder such as models/correspond, a repository id, or texture.", required=True)
@click.option(
    "--weights", default="encoder", metavar="NAME", help="The encoder (default), or a control: wrong_sound or random."
)
@click.option("--layer", metavar="LAYER", help="A layer of images instead of the embedding, such as pool5.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE_OR_DIR",
    help="The .parquet to write, or the folder of npz.",
)
@click.option("--hop", default=HOP_S, metavar="SECONDS", help="The time between embeddings (default: 0.1).")
@click.option("--center/--no-center", default=True, help="Whether windows are centered on their times (default).")
@click.option("--pool", is_flag=True, help="Write a row a file, the mean, instead of a row a moment.")
@click.option("--max-hours", default=HOURS, metavar="HOURS", help="Refuse files that are longer (default: 12).")
def command(
    inputs: tuple[Path, ...],
    model: str,
    weights: str,
    layer: str | None,
    output: Path,
    hop: float,
    center: bool,
    pool: bool,
    max_hours: float,
) -> None:
    """Embed the sounds and images of files, folders and tars.

    The output is a table with a row a moment (.parquet), or a folder with an npz a file, as openl3 writes it. The
    ledger beside it names every file, and why a refused one has no rows. EARSHOT_WORKERS sets the number of workers; a
    run that was stopped continues.

    \b
    Examples:
      earshot embed ../clips --model models/correspond --output emb.parquet
      earshot embed dog.wav cat.mp4 --model texture --output embeddings
    """
    if not hop > 0:
        raise EarshotError(f"--hop is {hop}, expected seconds above 0")
    if pool and output.suffix != TABLE:
        raise EarshotError(f"--pool gives a row a file: --output is {output}, expected a file that ends in {TABLE}")
    scratch = output.parent / f".{output.name}.unfinished"
    counts = embed_files(inputs, EmbedTask(model, weights, layer, hop, center, pool, max_hours * 3600, output, scratch))
    ledger = output.with_name(output.stem + LEDGER)
    refused = counts["files"] - counts["clips_kept"]
    echo(f"{output}: {counts['clips_kept']:,} of {counts['files']:,} files; refused: {refused:,} (why: {ledger})")
