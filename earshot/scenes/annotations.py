"""What humans said of clips, in a table of its own that no training stage reads: clip_id and a list of annotations.

Beside it is the ontology of their classes, where there is one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.files import write_atomically
from earshot.core.parquet import open_parquet
from earshot.corpus.ontology import read_ontology
from earshot.scenes.arrow import list_column, text_column

SCHEMA = pa.schema([("clip_id", pa.string()), ("annotations", pa.list_(pa.string()))])
ONTOLOGY_FILE = "ontology.json"  # beside the table, in the format of AudioSet's


def write_ontology(source: Path, folder: Path) -> None:
    """Put a copy of an ontology beside the table; raises EarshotError as `read_ontology` does."""
    read_ontology(source)
    with write_atomically(folder / ONTOLOGY_FILE) as temporary_path:
        temporary_path.write_bytes(source.read_bytes())


def write_annotations(path: Path, annotations: Mapping[str, Sequence[str]]) -> None:
    """Write a shard, a row a clip (also one of which nobody said anything), whole or not at all."""
    said = text_column([text for texts in annotations.values() for text in texts])
    columns = [text_column(list(annotations)), list_column([len(texts) for texts in annotations.values()], said)]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    with write_atomically(path) as temporary_path:
        pq.write_table(table, temporary_path, compression="none", row_group_size=100)


def read_annotations(path: Path) -> dict[str, list[str]]:
    """Read a shard: annotations by clip_id. Raises EarshotError where it cannot be read."""
    with open_parquet(path, SCHEMA.names, "extract") as file:
        table = file.read()
    return dict(zip(table["clip_id"].to_pylist(), table["annotations"].to_pylist(), strict=True))
