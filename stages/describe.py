"""Describe: the sound around every frame becomes a descriptor.

    python -m stages.describe
    python -m stages.describe --set descriptor=mfcc
    python -m stages.describe --set texture.order=resample-then-compress

Reads data/scenes and writes data/sounds, a row a moment: clip_id, moment (which frame of the clip), group, split,
silent, and descriptor, float32: texture (502), mfcc (3100) or spectrum (32). Silent moments stay in the table, flagged.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, shard_paths, write_atomically
from earshot.pipeline.stage import Run, Stage
from earshot.scenes.table import read_scenes
from earshot.sound.cochlea import BATCH
from earshot.sound.descriptors import DESCRIPTOR_SIZES, describe_windows
from earshot.sound.windows import SHORTEST_SECONDS, WINDOW_SECONDS, cut_windows

STAGE = Stage(
    name="describe",
    params=("descriptor", "texture", "extract.window", "extract.shortest"),
    reads=("data/scenes",),
    clips="data/scenes",
    writes=("data/sounds",),
    metrics=("describe",),
    spreads=True,
)
ROW_GROUP = 100  # moments
IDENTITY = ("clip_id", "group", "split")
CLIP_COLUMNS = (*IDENTITY, "times", "sound")


def main(run: Run) -> str:
    how = Description(run.params.descriptor, run.params.texture.model_dump(), run.params.extract.window)
    check_lengths(run.params.extract.window, run.params.extract.shortest)
    scenes = run.path("data/scenes")
    shards = len(shard_paths(scenes, ".parquet"))
    work = partial(describe_shard, scenes, run.out("data/sounds"), how)
    counts = run.map_shards(work, range(shards), title="describing")
    run.place("data/sounds")
    run.write_metrics("describe", {"moments": counts["moments"], "silent": counts["silent"]})
    return f"{counts['moments']:,} moments described as {how.descriptor}, {counts['silent']:,} of them silent"


@dataclass(frozen=True)
class Description:
    """What to make of the sound around a moment."""

    descriptor: str
    switches: Mapping[str, str]
    window: float  # s


def check_lengths(window: float, shortest: float) -> None:
    """Raise EarshotError where the extracted sound can be too short, or its windows too long, for a descriptor."""
    if not SHORTEST_SECONDS <= window <= WINDOW_SECONDS:
        wanted = f"{SHORTEST_SECONDS} to {WINDOW_SECONDS} s for a descriptor"
        raise EarshotError(f"extract.window is {window}, wanted {wanted}")
    if shortest < SHORTEST_SECONDS:
        raise EarshotError(f"extract.shortest is {shortest}, wanted {SHORTEST_SECONDS} s or more for a descriptor")


def describe_shard(scenes: Path, sounds: Path, how: Description, number: int) -> dict[str, int]:
    """Describe the moments of one shard of scenes, one row group of clips in memory at a time; return the counts."""
    counts = {"moments": 0, "silent": 0}
    name = f"{shard_name(number)}.parquet"
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    with write_atomically(sounds / name) as growing, pq.ParquetWriter(growing, sounds_schema(how), **options) as writer:
        for clips in read_scenes(scenes / name, CLIP_COLUMNS):
            try:
                described = describe_clips(clips, how)
            except EarshotError as error:
                raise EarshotError(f"{scenes / name}: {error}") from None
            writer.write_table(described, row_group_size=ROW_GROUP)
            counts["moments"] += len(described)
            counts["silent"] += int(np.sum(described["silent"].to_numpy()))
    return counts


def sounds_schema(how: Description) -> pa.Schema:
    """The columns of data/sounds."""
    identity = [("clip_id", pa.string()), ("moment", pa.int16()), ("group", pa.string()), ("split", pa.string())]
    descriptor = pa.list_(pa.float32(), DESCRIPTOR_SIZES[how.descriptor])
    return pa.schema([*identity, ("silent", pa.bool_()), ("descriptor", descriptor)])


def describe_clips(clips: pa.Table, how: Description) -> pa.Table:
    """A row for every moment of these clips, in their order."""
    moments = pc.list_value_length(clips["times"]).to_numpy()
    size = DESCRIPTOR_SIZES[how.descriptor]
    descriptors, silent = np.empty((moments.sum(), size), np.float32), np.empty(moments.sum(), bool)
    for rows, windows, centres, sample_rate in window_batches(clips, how.window):
        descriptors[rows], silent[rows] = describe_windows(windows, sample_rate, how.descriptor, how.switches, centres)
    columns = {name: clips[name].take(np.repeat(np.arange(len(clips)), moments)) for name in IDENTITY}
    columns["moment"] = np.concatenate([np.arange(count, dtype=np.int16) for count in moments])
    columns["silent"] = silent
    columns["descriptor"] = pa.FixedSizeListArray.from_arrays(descriptors.ravel(), size)
    return pa.table(columns).select(sounds_schema(how).names).cast(sounds_schema(how))


def window_batches(clips: pa.Table, seconds: float) -> Iterator[tuple[list[int], np.ndarray, np.ndarray, int]]:
    """The windows around all moments, those of equal rate and length together whatever clip they are from.

    Yields the rows of up to 16 moments in the table to come, their windows (moments, samples), where in its window each
    moment lies (s), and the sample rate.
    """
    waiting, row = defaultdict(list), 0
    for clip_id, sound, times in zip(*(clips[name] for name in ("clip_id", "sound", "times")), strict=True):
        samples, sample_rate = decode_sound(clip_id.as_py(), sound.as_buffer())
        windows, centres = cut_windows(samples, sample_rate, times.as_py(), seconds)
        batch = waiting[sample_rate, windows.shape[1]]
        batch += zip(range(row, row + len(windows)), windows, centres, strict=True)
        row += len(windows)
        while len(batch) >= BATCH:
            yield *joined(batch[:BATCH]), sample_rate
            del batch[:BATCH]
    for (sample_rate, _), batch in waiting.items():
        if batch:
            yield *joined(batch), sample_rate


def joined(batch: list[tuple[int, np.ndarray, float]]) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Rows, windows and centres of single moments as one list and two arrays."""
    rows, windows, centres = zip(*batch, strict=True)
    return list(rows), np.stack(windows), np.array(centres)


def decode_sound(clip_id: str, flac: pa.Buffer) -> tuple[np.ndarray, int]:
    """Samples, float32 (samples, channels) in [-1, 1], and their rate.

    Raises EarshotError where the sound cannot be read or is too short to describe.
    """
    try:
        samples, sample_rate = soundfile.read(pa.BufferReader(flac), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise EarshotError(f"the sound of clip {clip_id} cannot be read ({error}); extract it again") from None
    if len(samples) < SHORTEST_SECONDS * sample_rate:
        found = f"the sound of clip {clip_id} lasts {len(samples) / sample_rate:.3f} s"
        raise EarshotError(f"{found}, wanted {SHORTEST_SECONDS} s or more; run the stage extract again")
    return samples, sample_rate


if __name__ == "__main__":
    STAGE.run(main)
