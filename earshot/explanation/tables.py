"""The tables of exhibits, Parquet files in data/explain/<exhibit>: what a report reads and a notebook can.

Pictures are JPEG (photographs, also with something drawn over them) or PNG (spectrograms and other graphs), sounds are
MP3, videos MP4 (H.264 and AAC). A network is `encoder`, `wrong_sound` or `random`. Annotations are what humans said.
A rank counts from 1.

clusters.parquet, a row a cluster (of label models that have centroids), by number
    moments, trained_on     how many moments have the label, and of the training split are kept
    annotations, shares     the most frequent annotations of its clips and the share of its moments that have each
    mean, spread            32: mean of the envelopes of the centroid by channel, and their relative spread; descriptor
                            texture only, as the following; else empty
    correlation             32 x 32, row after row, NaN where a texture has none
    modulation              32 x 10, row after row: modulation power of each channel
    frequencies, rates      32 and 10, Hz: of the channels and of the modulation
    centroid                of any descriptor, as it is before scaling
cluster_moments.parquet, the moments nearest to each centroid, one a group, by cluster and rank
    frame, cochleagram      cochleagram: PNG of 32 channels, low at the bottom, over the whole sound
    sound, seconds          empty and 0 where only the picture is shown

units.parquet, a row a network and unit
    maximum                 the largest activation over all frames; 0 of a unit that never responds and has no gallery
    annotation, purity      what most of the unit's top frames show, and their share
    boxed, boxed_purity     the same among the annotated pictures of the tree
    iou_class, iou          the class whose boxes the unit covers best (NetDissect); NaN where there are no boxes
    selective               whether the purity reaches the threshold
    sounding                whether what the unit is selective for, by frames or else by pictures, makes sound
    gallery                 JPEG: the top frames side by side, squares, all but the receptive fields dimmed; of the
                            networks encoder and random
    clips, activations      of the frames in the gallery
unit_sweep.parquet, a row a network and threshold: how many units are selective at each threshold of purity, and
    how many (boxed_units) by the annotated pictures
unit_classes.parquet, a row a network and class: how many units are selective for it, by purity, by the purity among
    the annotated pictures (boxed_units) and by boxes (iou_units)

heatmaps.parquet, by network, sense, unit (those that prefer an annotation most come first) and rank
    sense                   picture or sound
    annotation, share       what most of the unit's top moments are annotated with
    shown, heat             the frame or spectrogram, and the same under the unit's heat map
    sound                   one second; with sense sound alone, else empty

localised.parquet, pictures with boxes, by name
    hit                     whether the map's highest point lies in a box; `control_hit` that of a random network
    shown, heat             the picture, and the same under the sounding map, boxes drawn on both
sounding_videos.parquet, whole clips, of long ones the first half minute, under the sounding map, with their sound
    poster, video

embedded.parquet, a row a network, sense and moment
    x, y                    t-SNE, each network and sense by itself, scaled into [0, 1]
embedded_moments.parquet, a row a moment that is a point of it
    thumbnail               JPEG, 64 px

retrieved.parquet, by network, direction, query and rank
    direction               picture-to-sound, sound-to-picture, picture-to-picture, sound-to-sound
    gain                    of the ontology's distance, as the benchmark retrieval counts it, over the largest
retrieval_clips.parquet, a row a clip that is a query or a result
    frame, spectrogram, sound
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically

ROW_GROUP = 50  # rows, of pictures and sounds: some megabytes

TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.float32())
INT, REAL, TEXT, BYTES, FLAG = pa.int32(), pa.float32(), pa.string(), pa.binary(), pa.bool_()
MOMENT = {"clip_id": TEXT, "moment": INT, "group": TEXT, "annotations": TEXTS}

SCHEMAS: dict[str, pa.Schema] = {
    name: pa.schema(list(columns.items()))
    for name, columns in {
        "clusters": {
            "cluster": INT,
            "moments": INT,
            "trained_on": INT,
            "annotations": TEXTS,
            "shares": NUMBERS,
            "mean": NUMBERS,
            "spread": NUMBERS,
            "correlation": NUMBERS,
            "modulation": NUMBERS,
            "frequencies": NUMBERS,
            "rates": NUMBERS,
            "centroid": NUMBERS,
        },
        "cluster_moments": {
            "cluster": INT,
            "rank": INT,
            **MOMENT,
            "distance": REAL,
            "frame": BYTES,
            "cochleagram": BYTES,
            "sound": BYTES,
            "seconds": REAL,
        },
        "units": {
            "network": TEXT,
            "unit": INT,
            "maximum": REAL,
            "annotation": TEXT,
            "purity": REAL,
            "boxed": TEXT,
            "boxed_purity": REAL,
            "iou_class": TEXT,
            "iou": REAL,
            "selective": FLAG,
            "sounding": FLAG,
            "gallery": BYTES,
            "clips": TEXTS,
            "activations": NUMBERS,
        },
        "unit_sweep": {"network": TEXT, "threshold": REAL, "units": INT, "share": REAL, "boxed_units": INT},
        "unit_classes": {
            "network": TEXT,
            "class": TEXT,
            "sounding": FLAG,
            "units": INT,
            "boxed_units": INT,
            "iou_units": INT,
        },
        "heatmaps": {
            "network": TEXT,
            "sense": TEXT,
            "unit": INT,
            "rank": INT,
            "annotation": TEXT,
            "share": REAL,
            **MOMENT,
            "shown": BYTES,
            "heat": BYTES,
            "sound": BYTES,
        },
        "localised": {
            "name": TEXT,
            "class": TEXT,
            "hit": FLAG,
            "control_hit": FLAG,
            "shown": BYTES,
            "heat": BYTES,
            "sound": BYTES,
        },
        "sounding_videos": {
            "clip_id": TEXT,
            "annotations": TEXTS,
            "seconds": REAL,
            "poster": BYTES,
            "video": BYTES,
        },
        "embedded": {"network": TEXT, "sense": TEXT, "clip_id": TEXT, "moment": INT, "x": REAL, "y": REAL},
        "embedded_moments": {**MOMENT, "thumbnail": BYTES},
        "retrieved": {
            "network": TEXT,
            "direction": TEXT,
            "query": TEXT,
            "rank": INT,
            "result": TEXT,
            "gain": REAL,
        },
        "retrieval_clips": {
            "clip_id": TEXT,
            "group": TEXT,
            "annotations": TEXTS,
            "frame": BYTES,
            "spectrogram": BYTES,
            "sound": BYTES,
        },
    }.items()
}


def write_table(folder: Path, name: str, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write `<name>.parquet` of SCHEMAS[name], whole or not at all, fifty rows in memory; return their number."""
    schema, written = SCHEMAS[name], 0
    with write_atomically(folder / f"{name}.parquet") as growing, pq.ParquetWriter(growing, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            written += len(group)
    return written


def read_table(folder: Path, name: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of `<name>.parquet`, of all columns or of some, one row group in memory at a time.

    Raises EarshotError where it is missing, damaged, or has other columns than SCHEMAS[name].
    """
    file = folder / f"{name}.parquet"
    try:
        with pq.ParquetFile(file) as table:
            if not table.schema_arrow.equals(SCHEMAS[name]):
                found = ", ".join(table.schema_arrow.names)
                raise EarshotError(f"{file}: has the columns {found}, wanted those of {name}; run the stage explain")
            for group in range(table.num_row_groups):
                yield from table.read_row_group(group, columns, use_threads=False).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise EarshotError(f"{file}: cannot be read ({reason}); run the stage explain again") from None


def _groups(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    group: list[Mapping[str, Any]] = []
    for row in rows:
        group.append(row)
        if len(group) == ROW_GROUP:
            yield group
            group = []
    if group:
        yield group
