"""Localization of sounds in images, against human boxes, in the layouts of VGG-SS and Flickr-SoundNet.

The network gets an image, resized to its square, and the sound at the middle of the recording; its map is scored
against the boxes as defined in earshot/evaluation/clips/localization_maps.

`ciou` is the share of images with a cIoU of at least .5, `auc` the area under that share over thresholds from 0 to 1
in steps of .05. `peak` is the share of images whose map has its maximum inside a box, which depends on no threshold.

Controls: a map that falls evenly from the center of the image to its corners (`center_`); the full image
(`full_image_`), with a random peak; the random and the wrong-sound network; and the trained network with the sound of
another image (`mismatched_audio_`), which measures visual salience alone.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from earshot.evaluation.benchmark import NETWORK_CONTROLS, Benchmark, Context, Result
from earshot.evaluation.clips.clip_embeddings import class_rows, load_correspondences
from earshot.evaluation.clips.images_with_sound import LocalizationExample, read_dataset
from earshot.evaluation.clips.localization_maps import RULES, SIDE, localization_maps, middle_slice, score
from earshot.evaluation.image_files import read_image
from earshot.networks.audio_visual_base import Correspondence
from earshot.params.evaluate import BenchmarkParams

PROTOCOL = "localization of sounds"
BATCH = 16


class LocalizationParams(BenchmarkParams):
    """No parameters of its own."""

    inputs: Literal["clips"]


def evaluate(context: Context[LocalizationParams]) -> Result:
    """cIoU, its area, and the share of peaks inside the boxes: of the network and of all controls."""
    networks = load_correspondences(context.encoder)
    images = read_dataset(context.data_dir)
    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    empty = 0
    for first in tqdm(range(0, len(images), BATCH), desc="localization", unit="batch", leave=False, disable=None):
        rows = range(first, min(first + BATCH, len(images)))
        truths = np.stack([images[row].truth() for row in rows])  # (batch, SIDE, SIDE)
        for prefix, maps in all_maps(networks, images, rows):
            for metric, values in score(maps, truths).items():
                parts[prefix + metric].append(values)
        parts["full_image_peak"][-1] = (truths > 0).mean((1, 2))
        empty += int((~truths.any((1, 2))).sum())
    raw = {name: np.concatenate(values) for name, values in parts.items()}
    scores: dict[str, np.ndarray] = {}
    for name, values in raw.items():
        scores[name] = (values >= 0.5).astype(float) if "ciou" in name else values
        if "ciou" in name:
            scores[name.replace("ciou", "auc")] = areas_under(values)
    metrics: dict[str, Any] = {name: float(values.mean()) for name, values in scores.items()}
    summary = [f"{metric} {metrics[metric]:.3f} (random {metrics[f'random_{metric}']:.3f}, center "
               f"{metrics[f'center_{metric}']:.3f})" for metric in ("peak", "ciou_median", "auc_median")]  # fmt: skip
    classes = class_rows([[image.kind] for image in images], scores)
    metrics |= {"images": len(images), "images_without_box": empty}
    items = [image.frame.stem for image in images]
    return Result(
        metrics, classes, f"{PROTOCOL}, {len(images):,} images", ", ".join(summary), items, item_scores=scores
    )


def areas_under(values: np.ndarray) -> np.ndarray:
    """The part of each image in the area under the share of values that reach a threshold: (images,).

    Their mean is that area, over 21 thresholds from 0 to 1, by trapezoids.
    """
    thresholds = np.linspace(0, 1, 21)
    return np.trapezoid((values[:, None] >= thresholds - 1e-12).astype(float), thresholds, axis=1)


def center_map() -> np.ndarray:
    """A map that falls evenly from the center to the corners: (SIDE, SIDE)."""
    offsets = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    return -np.hypot(offsets[:, None], offsets)


def all_maps(
    networks: Mapping[str, Correspondence], images: Sequence[LocalizationExample], rows: range
) -> Iterator[tuple[str, np.ndarray]]:
    """The maps of some images, (rows, SIDE, SIDE), by every network and control, with the prefix of its metrics.

    Raises:
        EarshotError: a network has no map, or a file cannot be read.
    """
    network = networks[""]
    frames = torch.stack([read_image(images[row].frame, network.image_size, network.image_size) for row in rows])
    sounds, mismatched = (
        torch.stack([middle_slice(images[index].sound, network) for index in indices])
        for indices in (rows, [row - 1 for row in rows])  # mismatched: the sound of the image before
    )
    for prefix, each in networks.items():
        yield prefix, localization_maps(each, frames, sounds)
    yield "mismatched_audio_", localization_maps(network, frames, mismatched)
    yield "center_", np.broadcast_to(center_map(), (len(rows), SIDE, SIDE))
    yield "full_image_", np.zeros((len(rows), SIDE, SIDE))


BENCHMARK = Benchmark(
    params=LocalizationParams,
    evaluate=evaluate,
    title="Where a sound comes from",
    scores=r"ciou_\w+|auc_\w+|peak",
    leading="peak",
    columns={f"{key}_{rule}": f"{word}, {rule}" for key, word in (("ciou", "cIoU"), ("auc", "AUC")) for rule in RULES},
    brief="Localization, peak",
    controls=NETWORK_CONTROLS
    | {"mismatched audio": "mismatched_audio_", "center": "center_", "full image": "full_image_"},
)
