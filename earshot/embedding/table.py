"""The table of embeddings: a row a moment, or a row a file; the file itself says which model made it.

| column | |
|---|---|
| clip_id, file | name of the clip, and its file as it was given |
| path, offset, size | where its bytes are; the size of a file in a tar |
| time | seconds; null in a row of a whole file |
| audio | embedding of the window of sound; null without sound, and where the window is silent |
| images | embedding of the image displayed then; null without images |
| silent | whether the window is silent |

The metadata of the Parquet file hold the model, its fingerprint, the dimensions, the hop and whether windows are
centered.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.messages import first_line
from earshot.embedding.moments import MomentEmbeddings
from earshot.media.clips import MediaFile

METADATA_KEY = b"earshot"
ROWS_AT_ONCE = 8192  # of a row group


@dataclass(frozen=True)
class Origin:
    """What made a table of embeddings.

    Args:
        model: as it was given to `load`.
        name: of the network or descriptor.
        fingerprint: of the model.
        version: of Earshot.
        audio_dimensions, image_dimensions: of the embeddings; 0 for none.
        aligned: whether both can be compared.
        hop_s, center: of the moments.
        pooled: whether a row is a whole file.
    """

    model: str
    name: str
    fingerprint: str
    version: str
    audio_dimensions: int
    image_dimensions: int
    aligned: bool
    hop_s: float
    center: bool
    pooled: bool

    @property
    def schema(self) -> pa.Schema:
        """The schema of the table, with this as its metadata."""
        fields = [("clip_id", pa.string()), ("file", pa.string()), ("path", pa.string())]
        fields += [("offset", pa.int64()), ("size", pa.int64()), ("time", pa.float64())]
        for name, dimensions in (("audio", self.audio_dimensions), ("images", self.image_dimensions)):
            fields += [(name, pa.list_(pa.float32(), dimensions))] if dimensions else []
        fields.append(("silent", pa.bool_()))
        return pa.schema(fields, {METADATA_KEY: json.dumps(asdict(self)).encode()})

    def rows(self, clip: MediaFile, moments: MomentEmbeddings, path: str) -> pa.Table:
        """The rows of moments of a clip."""
        number = len(moments.times)
        times = pa.nulls(number, pa.float64()) if self.pooled else pa.array(moments.times)
        columns: dict[str, Any] = {
            "clip_id": [clip.clip_id] * number,
            "file": [clip.source] * number,
            "path": [path] * number,
            "offset": [clip.offset] * number,
            "size": [clip.size] * number,
            "time": times,
            "silent": moments.silent,
        }
        absent = np.ones(number, bool)
        if self.audio_dimensions:
            mask = absent if moments.audio is None else moments.silent
            columns["audio"] = _vectors(moments.audio, mask, self.audio_dimensions)
        if self.image_dimensions:
            mask = absent if moments.images is None else ~absent
            columns["images"] = _vectors(moments.images, mask, self.image_dimensions)
        return pa.table({name: columns[name] for name in self.schema.names}, schema=self.schema)


def _vectors(values: np.ndarray | None, mask: np.ndarray, dimensions: int) -> pa.Array:
    """A column of vectors, null where the mask is true."""
    if values is None:
        return pa.nulls(len(mask), pa.list_(pa.float32(), dimensions))
    flat = pa.array(np.ascontiguousarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, dimensions, mask=pa.array(mask))


def read_origin(file: Path) -> Origin:
    """What made a table. Raises EarshotError if the file is no table of embeddings."""
    try:
        metadata = pq.read_schema(file).metadata or {}
        return Origin(**parse_json(metadata[METADATA_KEY]))
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        reason = first_line(error)
        raise EarshotError(f"{file}: is no table of embeddings ({reason}); write one with earshot embed") from None


def read_parts(file: Path, columns: list[str]) -> Iterator[pa.Table]:
    """These columns of a table, one row group at a time. Raises EarshotError if it cannot be read."""
    try:
        with pq.ParquetFile(file) as opened:
            for number in range(opened.num_row_groups):
                yield opened.read_row_group(number, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise EarshotError(f"{file}: cannot be read ({first_line(error)}); write it again with earshot embed") from None


def vectors(column: pa.ChunkedArray, dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """The vectors of a column that are not null, float32 (rows, dimensions), and the rows that have one."""
    present = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    values = column.combine_chunks().drop_null().flatten().to_numpy()
    return values.reshape(-1, dimensions), present
