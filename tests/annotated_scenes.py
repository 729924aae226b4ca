"""Small tables of annotated scenes, and a network without weights, for tests of the benchmarks on scenes.

The gray of an image and the loudness of a sound are numbers that a test sets; they are the network's embeddings.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torch import Tensor, nn

from earshot.corpus.split import split_of
from earshot.scenes.annotations import write_annotations
from earshot.scenes.writing import Scene, write_scenes

RATE, SECONDS = 8000, 2.0
TEST_GROUPS = [name for name in (f"video_{number}" for number in range(4000)) if split_of(name) == "test"]


def gray_jpeg(gray: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 36), (gray, gray, gray)).save(file, "JPEG")
    return file.getvalue()


def flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def write_annotated(
    root: Path,
    grays: Sequence[int],
    levels: Sequence[float],
    annotations: Sequence[Sequence[str]],
    groups: Sequence[str],
) -> None:
    """data/scenes and data/annotations under `root`: a clip for each entry, in two shards.

    A clip's frame nearest its middle has the gray, other frames are black; its sound has the level around that frame
    and is silent elsewhere.
    """
    scenes = []
    for number, (gray, level, group) in enumerate(zip(grays, levels, groups, strict=True)):
        time = np.arange(int(RATE * SECONDS)) / RATE
        sound = np.where(np.abs(time - 1.1) < 0.2, level, 0.0)
        scenes.append(
            Scene(
                clip_id=f"{group}_{number}",
                group=group,
                duration=SECONDS,
                frames=[gray_jpeg(0), gray_jpeg(gray), gray_jpeg(0)],
                times=[0.2, 1.1, 1.9],
                sound=flac(sound),
                audio_rate=RATE,
                audio_channels=1,
            )
        )
    for shard, start in enumerate(range(0, len(scenes), max(1, len(scenes) // 2 + 1))):
        part = slice(start, start + max(1, len(scenes) // 2 + 1))
        write_scenes(root / f"data/scenes/{shard:05d}.parquet", scenes[part])
        words = {scene.clip_id: list(each) for scene, each in zip(scenes[part], annotations[part], strict=True)}
        (root / "data/annotations").mkdir(parents=True, exist_ok=True)
        write_annotations(root / f"data/annotations/{shard:05d}.parquet", words)


class Telling(nn.Module):
    """Embeds an image as its gray and a sound as its loudest sample, both (n, 1) from 0 to 1, through tables if given.

    Args:
        images, sounds: the embedding of each gray (0 to 255) and of each level (in hundredths).
    """

    frames, image_size = 1, 32
    audio_samples, audio_rate, audio_channels = RATE // 2, RATE, 1

    def __init__(self, images: Mapping[int, Sequence] | None = None, sounds: Mapping[int, Sequence] | None = None):
        super().__init__()
        self.images, self.sounds = images, sounds
        self.architecture = {"name": "telling"}

    def embed_images(self, images: Tensor) -> Tensor:
        grays = images.float().mean((1, 2, 3))
        return grays[:, None] / 255 if self.images is None else _looked_up(self.images, grays)

    def embed_audio(self, sounds: Tensor) -> Tensor:
        levels = sounds.abs().amax(1)
        return levels[:, None] if self.sounds is None else _looked_up(self.sounds, levels * 100)


def _looked_up(table: Mapping[int, Sequence], keys: Tensor) -> Tensor:
    """The entry of the table nearest to each key."""
    known = np.array(list(table))
    nearest = np.abs(known[:, None] - keys.numpy()).argmin(0)
    return torch.stack([torch.as_tensor(table[int(known[index])], dtype=torch.float32) for index in nearest])
