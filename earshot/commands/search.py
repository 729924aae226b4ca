"""Searches a table of embeddings on the command line."""

from pathlib import Path

import click

from earshot.commands import options
from earshot.commands.output import echo
from earshot.embedding.index import MODALITIES, Hit, Index, excerpt, query_vectors
from earshot.embedding.loading import load
from earshot.report.search import SearchResult, write_search_page


@click.command()
@click.argument("query", type=options.FILE, metavar="FILE")
@click.option("--index", type=options.FILE, required=True, metavar="FILE", help="A table that earshot embed wrote.")
@options.model("The model of the table, if it lies elsewhere now.")
@click.option("--find", type=click.Choice(MODALITIES), default=None, help="Search one modality (default: all).")
@click.option("--number", type=click.IntRange(1, 1000), default=10, metavar="N", help="Hits at most (default: 10).")
@click.option("--output", type=options.FOLDER, metavar="DIR", help="The folder of a page with players to write.")
def command(query: Path, index: Path, model: str | None, find: str | None, number: int, output: Path | None) -> None:
    """Find the files nearest to a sound, an image or a video.

    Prints a line a hit: its cosine, modality, time and file. Sounds find images and images find sounds if the network
    compares both.

    \b
    Examples:
      earshot search dog.wav --index emb.parquet
      earshot search dog.jpg --index emb.parquet --find audio --output hits
    """
    table = Index(index)
    vectors = query_vectors(load(model or table.origin.model), query, table.origin)
    hits = table.search(vectors, number, find)
    for hit in hits:
        echo(f"{hit.score:.3f}  {words(hit)}  {hit.file}")
    if output:
        own = Hit(query.name, str(query), str(query), 0, 0, None, "", 0.0)
        results = [SearchResult(each.file, words(each), *excerpt(each)) for each in hits]
        about = f"{index}: embeddings of {table.origin.name}, {table.origin.fingerprint}."
        held = write_search_page(output, SearchResult(str(query), "query", *excerpt(own)), results, about)
        echo(f"{output / 'index.html'}: {held}")


def words(hit: Hit) -> str:
    """The modality and the time of a hit."""
    return hit.modality if hit.time is None else f"{hit.modality} at {hit.time:.1f} s"
