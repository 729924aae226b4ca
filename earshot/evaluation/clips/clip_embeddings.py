"""Annotated clips as correspondence networks describe them: one moment of each, the one nearest its middle."""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths
from earshot.evaluation.encoders import load_encoders
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.crops import crop_frames
from earshot.networks.device import get_device, on_device
from earshot.networks.files import load_correspondence
from earshot.networks.network import ImageEncoder
from earshot.scenes.annotations import read_annotations
from earshot.scenes.clips import InputSpec, Sampling, SceneClip, clips_of
from earshot.scenes.table import decoding_frames

BATCH = 32
# A slice of sound is centred on its frame and begins on the grid of training (Kim 2020, section 3.3).
CENTERED = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=0.0)

Describe = Callable[[Any, Tensor], Tensor]  # what one network makes of pictures or of sounds


def load_correspondences(folder: Path) -> dict[str, Correspondence]:
    """The trained network of a folder, the same with random weights, and the control where it was trained.

    The keys are the prefixes of their metrics. Raises EarshotError as `load_correspondence` does, and for a network of
    more than one picture a moment.
    """
    networks = load_encoders(folder, load_correspondence)
    for network in networks.values():
        if network.frames != 1:
            found = f"{network.architecture['name']}, which sees {network.frames} pictures at a time"
            raise EarshotError(f"{folder}: holds {found}; this benchmark wants one of single pictures: l3, ave or avol")
        on_device(network)
    return networks


@torch.inference_mode()
def describe_clips(
    scenes: Path,
    clips: Iterable[SceneClip],
    wanted: InputSpec,
    networks: Mapping[str, ImageEncoder],
    see: Describe,
    hear: Describe | None,
    title: str,
) -> tuple[list[tuple[str, str]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Names of clips and groups, in order; and what `see` and `hear` make of a moment of each, by the networks' names.

    Args:
        scenes: the table that the clips are from, for the messages.
        wanted: what the networks take of a clip.
        hear: None for networks that hear nothing.

    Returns:
        (clip_id, group) of each clip, and float32 (clips, dimensions) of each network for pictures and for sounds.
    """
    device = get_device()
    found: list[tuple[str, str]] = []
    images: dict[str, list[Tensor]] = {name: [] for name in networks}
    sounds: dict[str, list[Tensor]] = {name: [] for name in networks if hear}
    remaining = iter(clips)
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    for batch in tqdm(batches, desc=title, unit="batch", leave=False):
        found += [(clip.clip_id, clip.group) for clip in batch]
        seen, heard = (tensor.to(device) for tensor in _moments(scenes, batch, wanted))
        for name, network in networks.items():
            images[name].append(see(network, seen).float().cpu())
            if hear:
                sounds[name].append(hear(network, heard).float().cpu())
    order = sorted(range(len(found)), key=found.__getitem__)
    described, described_sounds = (
        {name: torch.cat(rows)[order].numpy() for name, rows in parts.items() if rows} for parts in (images, sounds)
    )
    return [found[place] for place in order], described, described_sounds


def annotation_table(annotations: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """The classes in order, and which clips are annotated with each: bool (clips, classes)."""
    names = sorted({name for said in annotations for name in said})
    return names, np.array([[name in said for name in names] for said in annotations])


def class_rows(annotations: Sequence[Sequence[str]], scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row a class: how many clips (or pictures) are annotated so, and the means of their scores, each (clips,)."""
    rows = []
    names, annotated = annotation_table(annotations)
    for name, of_class in zip(names, annotated.T, strict=True):
        means = {metric: float(values[of_class].mean()) for metric, values in scores.items()}
        rows.append({"class": name, "clips": int(of_class.sum())} | means)
    return rows


def read_all_annotations(folder: Path) -> dict[str, list[str]]:
    """What humans said of all clips of a folder, by clip.

    Raises EarshotError where the folder holds no annotations, or some that cannot be read.
    """
    said: dict[str, list[str]] = {}
    for shard in shard_paths(folder, ".parquet"):
        said |= read_annotations(shard)
    return said


def clip_names(scenes: Path, wanted: InputSpec, split: str) -> Iterator[str]:
    """The names of the clips of a split that last long enough. Raises EarshotError as `clips_of` does."""
    for group in clips_of(scenes, wanted, CENTERED, split=split):
        if len(group):
            yield from group.clip_ids()


def clips_of_split(
    scenes: Path, wanted: InputSpec, split: str, named: Container[str] | None = None
) -> Iterator[SceneClip]:
    """The clips of a split that last long enough, a row group in memory at a time; with `named` those of these names.

    Raises EarshotError as `clips_of` does.
    """
    for group in clips_of(scenes, wanted, CENTERED, split=split):
        if len(group) and (named is None or any(name in named for name in group.clip_ids())):
            yield from (clip for clip in group.read() if named is None or clip.clip_id in named)


def middle_moment(clip: SceneClip, seconds: float) -> tuple[int, float]:
    """The number of the moment nearest to a clip's middle, and where its slice of so many seconds of sound begins."""
    number = int(np.abs(np.array(clip.times) - clip.duration / 2).argmin())
    return number, CENTERED.start(clip, clip.times[number], seconds, 0)


def _moments(scenes: Path, clips: list[SceneClip], wanted: InputSpec) -> tuple[Tensor, Tensor]:
    """Pictures, uint8 (clips, 3, image_size, image_size), and sounds, float32 (clips, samples)."""
    moments = [middle_moment(clip, wanted.seconds) for clip in clips]
    sounds = [wanted.cut(clip.sound, start) for clip, (_, start) in zip(clips, moments, strict=True)]
    with decoding_frames(scenes):
        jpegs = [clip.frames[number] for clip, (number, _) in zip(clips, moments, strict=True)]
        images = crop_frames(jpegs, wanted.image_size)
    return images, torch.from_numpy(np.stack(sounds))
