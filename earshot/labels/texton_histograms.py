"""Texton histograms of the frames at the moments of a table of sounds, and the pixels that the dictionary is fitted on.

The histograms are in a table like that of sounds, row by row, so that the same code makes labels from either. Silent
moments get none: all label models are fitted on the same moments.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import load_file, save_file

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.labels.table import IDENTITY, ROW_GROUP, TRAINING, check_columns
from earshot.labels.textons import Textons, filter_bank, filter_responses, read_luma
from earshot.scenes.moments import match_moments
from earshot.scenes.table import frames_in

DRAWN_FRAMES, DRAWN_PIXELS = 1024, 200  # frames for fitting the dictionary, and pixels of each: 54 MB


def check_shards(scenes: Sequence[Path], sounds: Sequence[Path]) -> None:
    """Raise EarshotError if the tables differ in their number of shards."""
    if len(scenes) != len(sounds):
        message = f"{len(sounds)} shards of sounds, {len(scenes)} of scenes in {scenes[0].parent}"
        raise EarshotError(f"{sounds[0].parent}: {message}; run the stage describe again")


def draw_frames(sounds: Sequence[Path], seed: int) -> list[np.ndarray]:
    """For each shard the rows of the frames for fitting the dictionary.

    Up to 1024 in all are drawn, by the seed, from the training moments that are not silent.
    """
    audible = [np.flatnonzero(_audible(path) & _training(path)) for path in sounds]
    ends = np.cumsum([len(rows) for rows in audible])
    count = min(int(ends[-1]), DRAWN_FRAMES)
    drawn = np.sort(np.random.default_rng(seed).choice(int(ends[-1]), count, replace=False))
    cuts = np.searchsorted(drawn, ends)
    starts = np.r_[0, ends[:-1]]
    return [rows[part - start] for rows, part, start in zip(audible, np.split(drawn, cuts[:-1]), starts, strict=True)]


def write_pixels(path: Path, scenes: Path, sounds: Path, rows: np.ndarray, seed: Sequence[int]) -> None:
    """Write the responses at up to 200 random pixels of each of these frames, float32 (pixels, 66)."""
    drawn = [np.empty((0, filter_bank().shape[1]), dtype=np.float32)]
    for row, frame in _frames(scenes, sounds, rows):
        responses = _responses(scenes, row, frame)
        generator = np.random.default_rng([*seed, row])
        drawn.append(responses[generator.choice(len(responses), min(len(responses), DRAWN_PIXELS), replace=False)])
    with write_atomically(path) as temporary_path:
        save_file({"pixels": np.concatenate(drawn)}, temporary_path)


def read_pixels(path: Path) -> np.ndarray:
    """The pixels that `write_pixels` wrote."""
    return load_file(path)["pixels"]


def write_histograms(path: Path, scenes: Path, sounds: Path, textons: Textons) -> None:
    """Write a shard of texton histograms: the columns of sounds, with the histogram as `descriptor`.

    Silent moments get zeros.
    """
    audible = _audible(sounds)
    histograms = np.zeros((len(audible), len(textons.textons)), dtype=np.float32)
    for row, frame in _frames(scenes, sounds, np.flatnonzero(audible)):
        histograms[row] = textons.histogram(_responses(scenes, row, frame))
    table = pq.read_table(sounds, columns=[*(name for name, _ in IDENTITY), "silent"])
    descriptor = pa.FixedSizeListArray.from_arrays(histograms.ravel(), histograms.shape[1])
    with write_atomically(path) as temporary_path:
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        pq.write_table(
            table.append_column("descriptor", descriptor), temporary_path, row_group_size=ROW_GROUP, **options
        )


def _audible(sounds: Path) -> np.ndarray:
    check_columns(sounds)
    return ~pq.read_table(sounds, columns=["silent"])["silent"].to_numpy()


def _training(sounds: Path) -> np.ndarray:
    return pc.equal(pq.read_table(sounds, columns=["split"])["split"], TRAINING).to_numpy()


def _responses(scenes: Path, row: int, frame: bytes) -> np.ndarray:
    try:
        return filter_responses(read_luma(frame))
    except EarshotError as error:
        raise EarshotError(f"{scenes}: frame {row} is {error}") from None


def _frames(scenes: Path, sounds: Path, rows: np.ndarray) -> Iterator[tuple[int, bytes]]:
    """The JPEG frames of these rows of a table of sounds, ascending, each with its row.

    Reads a row group of scenes at a time. Raises EarshotError if the moments of the two tables differ.
    """
    moments = pq.read_table(sounds, columns=["clip_id", "moment"])
    for group in match_moments(scenes, sounds, moments, ["frames"], advice="run the stage describe again"):
        selected = rows[(rows >= group.start) & (rows < group.start + len(group.rows))]
        places = selected - group.start
        yield from zip(selected.tolist(), frames_in(group.table, group.rows[places], group.places[places]), strict=True)
