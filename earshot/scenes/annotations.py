"""Human annotations of clips, in a table that no training stage reads: clip_id and a list of annotations.

The ontology of their classes, where there is one, lies beside the table.
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
    """Copy an ontology to the folder of the table. Raises EarshotError as `read_ontology` does."""
    read_ontology(source)
    with write_atomically(folder / ONTOLOGY_FILE) as temporary_path:
        temporary_path.write_bytes(source.read_bytes())


def write_annotations(path: Path, annotations: Mapping[str, Sequence[str]]) -> None:
    """Write a shard atomically, a row a clip, also for clips without annotations."""
    values = text_column([text for texts in annotations.values() for text in texts])
    columns = [text_column(list(annotations)), list_column([len(texts) for texts in annotations.values()], values)]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    with write_atomically(path) as temporary_path:
        pq.write_table(table, temporary_path, compression="none", row_group_size=100)


def read_annotations(path: Path) -> dict[str, list[str]]:
    """Read a shard: annotations by clip_id. Raises EarshotError if it cannot be read."""
    with open_parquet(path, SCHEMA.names, "extract") as file:
        table = file.read()
    return dict(zip(table["clip_id"].to_pylist(), table["annotations"].to_pylist(), strict=True))
