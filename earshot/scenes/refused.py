"""The first frames of clips that decoded and were refused: silent, still or clipped ones, for the report to show."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import write_atomically
from earshot.core.parquet import open_parquet

REFUSED = "refused"  # the folder beside the scenes
SCHEMA = pa.schema([("clip_id", pa.string()), ("image", pa.binary())])


def write_refused_images(path: Path, images: Mapping[str, bytes]) -> None:
    """Write JPEG images by the names of their clips; no file for none."""
    if not images:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as temporary:
        pq.write_table(pa.table([list(images), list(images.values())], schema=SCHEMA), temporary)


def read_refused_images(scenes: Path) -> Iterator[tuple[str, bytes]]:
    """The name and the image of each clip, from all shards.

    Raises EarshotError for a file that cannot be read.
    """
    for path in sorted((scenes / REFUSED).glob("*.parquet")):
        with open_parquet(path, SCHEMA.names, "extract") as file:
            rows = file.read().to_pylist()
        yield from ((row["clip_id"], row["image"]) for row in rows)
