"""The table of sounds: a row for each moment of the table of scenes, in the same order, one Parquet file a shard.

| column | |
|---|---|
| clip_id, moment, group, split | the clip, and the number of the frame within it |
| silent | whether the window is silent; silent moments have a descriptor too |
| descriptor | float32, of fixed size |
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.scenes.audio_slices import clip_sound
from earshot.scenes.table import read_scenes
from earshot.sound.cochlea import BATCH
from earshot.sound.description import Description
from earshot.sound.windows import MIN_DURATION_S, WINDOW_SECONDS, cut_windows

ROW_GROUP = 100  # moments
IDENTITY = ("clip_id", "group", "split")
CLIP_COLUMNS = (*IDENTITY, "times", "sound")


def check_lengths(window_s: float, min_duration_s: float) -> None:
    """Raise EarshotError if windows may be too short or too long for a descriptor."""
    if not MIN_DURATION_S <= window_s <= WINDOW_SECONDS:
        expected = f"{MIN_DURATION_S} to {WINDOW_SECONDS} s for a descriptor"
        raise EarshotError(f"extract.window_s is {window_s}, expected {expected}")
    if min_duration_s < MIN_DURATION_S:
        expected = f"{MIN_DURATION_S} s or more for a descriptor"
        raise EarshotError(f"extract.min_duration_s is {min_duration_s}, expected {expected}")


def describe_shard(
    scenes: Path, sounds: Path, digests: Path, description: Description, window_s: float, number: int
) -> dict[str, int]:
    """Describe the moments of one shard of scenes, with one row group of clips in memory; return the counts.

    Args:
        scenes, sounds: folders of the tables.
        digests: folder for the SHA-256 of the shard's descriptors, as bytes of little-endian float32.
        window_s: length of the sound around a moment, s.
        number: of the shard.
    """
    counts, digest = {"moments": 0, "silent": 0}, hashlib.sha256()
    name = f"{shard_name(number)}.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    schema = sounds_schema(description.dimensions)
    with (
        write_atomically(sounds / name) as temporary_path,
        pq.ParquetWriter(temporary_path, schema, **options) as writer,
    ):
        for clips in read_scenes(scenes / name, CLIP_COLUMNS):
            try:
                described = describe_clips(clips, description, window_s)
            except EarshotError as error:
                raise EarshotError(f"{scenes / name}: {error}") from None
            writer.write_table(described, row_group_size=ROW_GROUP)
            counts["moments"] += len(described)
            counts["silent"] += int(np.sum(described["silent"].to_numpy()))
            for chunk in described["descriptor"].chunks:
                digest.update(chunk.flatten().to_numpy().astype("<f4", copy=False))
    with write_atomically(_digest_file(digests, number)) as temporary_path:
        temporary_path.write_text(digest.hexdigest())
    return counts


def read_digests(digests: Path, shards: int) -> list[str]:
    """The digests that `describe_shard` wrote, in shard order."""
    return [_digest_file(digests, number).read_text() for number in range(shards)]


def _digest_file(digests: Path, number: int) -> Path:
    return digests / f"{shard_name(number)}.txt"


def sounds_schema(dimensions: int) -> pa.Schema:
    """The columns of data/sounds."""
    identity = [("clip_id", pa.string()), ("moment", pa.int16()), ("group", pa.string()), ("split", pa.string())]
    return pa.schema([*identity, ("silent", pa.bool_()), ("descriptor", pa.list_(pa.float32(), dimensions))])


def describe_clips(clips: pa.Table, description: Description, window_s: float) -> pa.Table:
    """The table of the moments of these clips, in order."""
    moments = pc.list_value_length(clips["times"]).to_numpy()
    size = description.dimensions
    descriptors, silent = np.empty((moments.sum(), size), np.float32), np.empty(moments.sum(), bool)
    for rows, windows, centers, sample_rate in window_batches(clips, window_s):
        descriptors[rows], silent[rows] = description.describe(windows, sample_rate, centers)
    columns = {name: clips[name].take(np.repeat(np.arange(len(clips)), moments)) for name in IDENTITY}
    columns["moment"] = np.concatenate([np.arange(count, dtype=np.int16) for count in moments])
    columns["silent"] = silent
    columns["descriptor"] = pa.FixedSizeListArray.from_arrays(descriptors.ravel(), size)
    schema = sounds_schema(size)
    return pa.table(columns).select(schema.names).cast(schema)


def window_batches(clips: pa.Table, seconds: float) -> Iterator[tuple[list[int], np.ndarray, np.ndarray, int]]:
    """The windows around all moments, batched by sample rate and length, across clips.

    Yields the row numbers of up to 16 moments, their windows (moments, samples), the time of each moment within its
    window (s), and the sample rate.
    """
    waiting: dict[tuple[int, int], list] = defaultdict(list)
    row = 0
    for clip_id, sound, times in zip(*(clips[name] for name in ("clip_id", "sound", "times")), strict=True):
        samples, sample_rate = decode_sound(clip_id.as_py(), sound.as_buffer())
        windows, centers = cut_windows(samples, sample_rate, times.as_py(), seconds)
        batch = waiting[sample_rate, windows.shape[1]]
        batch += zip(range(row, row + len(windows)), windows, centers, strict=True)
        row += len(windows)
        while len(batch) >= BATCH:
            yield *joined(batch[:BATCH]), sample_rate
            del batch[:BATCH]
    for (sample_rate, _), batch in waiting.items():
        if batch:
            yield *joined(batch), sample_rate


def joined(batch: list[tuple[int, np.ndarray, float]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Join rows, windows and centers of single moments to a list and two arrays."""
    rows, windows, centers = zip(*batch, strict=True)
    return list(rows), np.stack(windows), np.array(centers)


def decode_sound(clip_id: str, flac: pa.Buffer) -> tuple[np.ndarray, int]:
    """Samples, float32 (samples, channels) in [-1, 1], and their rate.

    Raises EarshotError if the sound cannot be read or is too short to describe.
    """
    samples, sample_rate = clip_sound(clip_id, flac)
    if len(samples) < MIN_DURATION_S * sample_rate:
        actual = f"the sound of clip {clip_id} lasts {len(samples) / sample_rate:.3f} s"
        raise EarshotError(f"{actual}, expected {MIN_DURATION_S} s or more; run the stage extract again")
    return samples, sample_rate
