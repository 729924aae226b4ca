"""Small tables of scenes and labels for tests of training: images whose stripes reveal the label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torchvision.io import encode_jpeg

from earshot.core.files import shard_name
from earshot.corpus.split import split_of
from earshot.labels.table import LABELS, LABELS_FILE, write_table
from earshot.scenes.writing import Scene, write_scenes


def striped_frame(label: int, generator: np.random.Generator, height: int = 72, width: int = 96) -> bytes:
    """A JPEG of stripes, vertical for label 0, horizontal for 1, diagonal for 2, of random colors and positions."""
    y, x = np.mgrid[:height, :width] + generator.integers(20, size=(2, 1, 1))
    wave = np.sin(2 * np.pi / 12 * (x, y, (x + y) / 1.4)[label])[None] * 0.5 + 0.5
    low, high = generator.integers(0, 100, (3, 1, 1)), generator.integers(150, 256, (3, 1, 1))
    image = torch.from_numpy((low + (high - low) * wave).astype(np.uint8))
    return bytes(encode_jpeg(image, quality=90).numpy())


def write_striped_tables(root: Path, clips_per_shard: Sequence[int], frames: int = 2, seed: int = 0) -> None:
    """Write data/scenes and data/labels under `root`, with three labels.

    One in eight moments is not kept, one in ten is silent.
    The wrong-sound columns hold the labels of the next clip.
    """
    generator = np.random.default_rng(seed)
    (root / "data/labels").mkdir(parents=True, exist_ok=True)
    (root / "data/labels" / LABELS_FILE).write_text('{"kind": "cluster", "values": 3}')
    first = 0
    for number, clips in enumerate(clips_per_shard):
        labels = generator.integers(3, size=(clips, frames)).astype(np.int32)
        scenes = [_scene(first + row, labels[row], generator) for row in range(clips)]
        write_scenes(root / "data/scenes" / f"{shard_name(number)}.parquet", scenes)
        table = _labels(scenes, labels, generator)
        write_table(root / "data/labels" / f"{shard_name(number)}.parquet", table)
        first += clips


def _scene(number: int, labels: np.ndarray, generator: np.random.Generator) -> Scene:
    return Scene(
        clip_id=f"clip{number:04d}",
        group=f"video{number:04d}",
        duration=8.0,
        frames=[striped_frame(label, generator) for label in labels],
        times=np.linspace(1, 7, len(labels)).tolist(),
        sound=b"not read by training",
        audio_rate=20000,
        audio_channels=1,
    )


def _labels(scenes: list[Scene], labels: np.ndarray, generator: np.random.Generator) -> pa.Table:
    clips, frames = labels.shape
    silent = generator.random((clips, frames)) < 0.1
    kept = ~silent & (generator.random((clips, frames)) > 0.125)
    values = np.where(silent, -1, labels).astype(np.int32)
    repeated = [scene for scene in scenes for _ in range(frames)]
    return pa.table(
        [
            [scene.clip_id for scene in repeated],
            np.tile(np.arange(frames, dtype=np.int16), clips),
            [scene.group for scene in repeated],
            [split_of(scene.group) for scene in repeated],
            values.ravel(),
            kept.ravel(),
            np.zeros(clips * frames, np.float32),
            np.roll(values, 1, axis=0).ravel(),
            np.roll(kept, 1, axis=0).ravel(),
        ],
        schema=LABELS,
    )
