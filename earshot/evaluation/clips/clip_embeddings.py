"""Embeddings of clips by correspondence networks, at the moment nearest the middle of each clip."""

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
from earshot.networks.correspondence import is_correspondence
from earshot.networks.crops import crop_frames
from earshot.networks.device import get_device, on_device
from earshot.networks.files import ARCHITECTURE_FILE, load_correspondence, read_architecture
from earshot.networks.network import ImageEncoder
from earshot.scenes.annotations import read_annotations
from earshot.scenes.clips import InputSpec, Sampling, SceneClip, clips_of
from earshot.scenes.table import decoding_frames

BATCH = 32
# A slice of sound is centered on its frame and begins on the grid of training (Kim 2020, section 3.3).
CENTERED = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=0.0)

Describe = Callable[[Any, Tensor], Tensor]  # from a network and images or sounds to embeddings


def load_correspondences(folder: Path) -> dict[str, Correspondence]:
    """The trained network of a folder, the same network with random weights, and the control if it was trained.

    The keys are the prefixes of their metrics. Raises EarshotError as `load_correspondence` does, and for a network
    that takes sequences of images.
    """
    networks = load_encoders(folder, load_correspondence)
    for network in networks.values():
        if network.frames != 1:
            actual = f"{network.architecture['name']}, which takes {network.frames} images at a time"
            raise EarshotError(f"{folder}: holds {actual}; use a network of single images: l3, ave or avol")
        on_device(network)
    return networks


def takes_audio(folder: Path) -> bool:
    """Whether the networks of a folder take sounds, that is, come from the stage correspond.

    Raises EarshotError as `read_architecture` does.
    """
    return is_correspondence(read_architecture(folder / ARCHITECTURE_FILE)["name"])


def load_image_encoders(folder: Path) -> dict[str, Any]:
    """The networks of a folder of the stage pretrain, as `load_correspondences` returns those of correspond.

    Raises EarshotError as `load_encoder` does.
    """
    return {prefix: on_device(network) for prefix, network in load_encoders(folder).items()}


def images_alone(network: ImageEncoder) -> InputSpec:
    """The input of a network that takes no sound."""
    return InputSpec(image_size=network.image_size, frames=1, audio_samples=0, audio_rate=1, audio_channels=1)


def last_features(network: ImageEncoder, images: Tensor) -> Tensor:
    """The embedding of images by a network of the stage pretrain: its last layer for probes, such as fc7."""
    last = network.probe_layers[-1]
    return network.features(images, [last])[last]


@torch.inference_mode()
def describe_clips(
    scenes: Path,
    clips: Iterable[SceneClip],
    spec: InputSpec,
    networks: Mapping[str, ImageEncoder],
    embed_images: Describe,
    embed_audio: Describe | None,
    title: str,
) -> tuple[list[tuple[str, str]], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Names of clips and groups, sorted, and the embeddings of a moment of each by every network.

    Args:
        scenes: the table of the clips, for error messages.
        spec: the networks' input.
        embed_audio: None for networks without audio.

    Returns:
        (clip_id, group) of each clip, and float32 (clips, dimensions) by network, for images and for sounds.
    """
    device = get_device()
    clip_groups: list[tuple[str, str]] = []
    images: dict[str, list[Tensor]] = {name: [] for name in networks}
    sounds: dict[str, list[Tensor]] = {name: [] for name in networks if embed_audio}
    remaining = iter(clips)
    batches = iter(lambda: list(islice(remaining, BATCH)), [])
    for batch in tqdm(batches, desc=title, unit="batch", leave=False, disable=None):
        clip_groups += [(clip.clip_id, clip.group) for clip in batch]
        image_batch, audio_batch = (tensor.to(device) for tensor in _moments(scenes, batch, spec))
        for name, network in networks.items():
            images[name].append(embed_images(network, image_batch).float().cpu())
            if embed_audio:
                sounds[name].append(embed_audio(network, audio_batch).float().cpu())
    order = sorted(range(len(clip_groups)), key=clip_groups.__getitem__)
    described, described_sounds = (
        {name: torch.cat(rows)[order].numpy() for name, rows in parts.items() if rows} for parts in (images, sounds)
    )
    return [clip_groups[index] for index in order], described, described_sounds


def annotation_table(annotations: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """The classes in order, and which clips are annotated with each: bool (clips, classes)."""
    names = sorted({name for of_clip in annotations for name in of_clip})
    return names, np.array([[name in of_clip for name in names] for of_clip in annotations])


def class_rows(annotations: Sequence[Sequence[str]], scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """A row per class: the number of its clips (or images), and the means of their scores, each (clips,)."""
    rows = []
    names, annotated = annotation_table(annotations)
    for name, of_class in zip(names, annotated.T, strict=True):
        means = {metric: float(values[of_class].mean()) for metric, values in scores.items()}
        rows.append({"class": name, "clips": int(of_class.sum())} | means)
    return rows


def read_all_annotations(folder: Path) -> dict[str, list[str]]:
    """The annotations of all clips of a folder, by clip.

    Raises EarshotError if the folder holds no annotations, or some that cannot be read.
    """
    annotations: dict[str, list[str]] = {}
    for shard in shard_paths(folder, ".parquet"):
        annotations |= read_annotations(shard)
    return annotations


def clip_names(scenes: Path, spec: InputSpec, split: str) -> Iterator[str]:
    """The names of the clips of a split that are long enough. Raises EarshotError as `clips_of` does."""
    for group in clips_of(scenes, spec, CENTERED, split=split):
        if len(group):
            yield from group.clip_ids()


def clips_of_split(
    scenes: Path, spec: InputSpec, split: str, named: Container[str] | None = None
) -> Iterator[SceneClip]:
    """The clips of a split that are long enough, a row group in memory at a time; `named` selects clips by name.

    Raises EarshotError as `clips_of` does.
    """
    for group in clips_of(scenes, spec, CENTERED, split=split):
        if len(group) and (named is None or any(name in named for name in group.clip_ids())):
            yield from (clip for clip in group.read() if named is None or clip.clip_id in named)


def middle_moment(clip: SceneClip, seconds: float) -> tuple[int, float]:
    """The index of the moment nearest to a clip's middle, and the start of its slice of `seconds` of sound."""
    number = int(np.abs(np.array(clip.times) - clip.duration / 2).argmin())
    return number, CENTERED.start(clip, clip.times[number], seconds, 0)


def _moments(scenes: Path, clips: list[SceneClip], spec: InputSpec) -> tuple[Tensor, Tensor]:
    """Images, uint8 (clips, 3, image_size, image_size), and sounds, float32 (clips, samples)."""
    moments = [middle_moment(clip, spec.seconds) for clip in clips]
    sounds = [spec.cut(clip, start) for clip, (_, start) in zip(clips, moments, strict=True)]
    with decoding_frames(scenes):
        jpegs = [clip.frames[number] for clip, (number, _) in zip(clips, moments, strict=True)]
        images = crop_frames(jpegs, spec.image_size)
    return images, torch.from_numpy(np.stack(sounds))
