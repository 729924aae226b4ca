"""Localization maps of networks, and their scores against the truth.

The map is scaled up to 224 x 224 with bilinear interpolation. Its positive region lies above

- the median, half of the image (`median`: the code of Chen 2021 and its successors, on both sets), or
- the middle between the minimum and the maximum (`half`: a fixed threshold, as in the definition by Senocak 2018).

cIoU is the sum of the truth inside the positive region, divided by the sum of the whole truth plus the area of the
positive region where the truth is 0.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.errors import EarshotError
from earshot.media.guarded_files import read_sound_file
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.device import get_device
from earshot.scenes.audio_slices import cut_slices, resample

SIDE = 224  # px of the scaled map, as in both papers' code
RULES = ("median", "half")


def score(maps: np.ndarray, truths: np.ndarray) -> dict[str, np.ndarray]:
    """cIoU by both rules, and whether the peak is inside a box, of maps and truths (images, SIDE, SIDE)."""
    pairs = list(zip(maps, truths, strict=True))
    scores = {f"ciou_{rule}": np.array([ciou(positive(each, rule), truth) for each, truth in pairs]) for rule in RULES}
    return scores | {"peak": np.array([float(truth.flat[each.argmax()] > 0) for each, truth in pairs])}


def positive(values: np.ndarray, rule: str) -> np.ndarray:
    """The positive region of a map, bool (SIDE, SIDE); the whole image for a constant map."""
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return np.ones(values.shape, bool)
    return values > (np.median(values) if rule == "median" else (lowest + highest) / 2)


def ciou(region: np.ndarray, truth: np.ndarray) -> float:
    """Consensus intersection over union (Senocak 2018); 0 if the truth is empty.

    Args:
        region: the predicted region, bool (height, width).
        truth: 0 to 1, (height, width).
    """
    whole = truth.sum() + (region & (truth == 0)).sum()
    return float(truth[region].sum() / whole) if whole else 0.0


@torch.inference_mode()
def localization_maps(network: Correspondence, images: Tensor, sounds: Tensor) -> np.ndarray:
    """A network's maps of images and sounds, scaled up: log-odds, float32 (pairs, SIDE, SIDE).

    Raises EarshotError if the network has no map, or the map is not finite.
    """
    device = get_device()
    maps = network.localization_map(images.to(device), sounds.to(device))
    if not torch.isfinite(maps).all():
        raise EarshotError("a localization map is not finite; train the network again, with a lower learning rate")
    return interpolate(maps[:, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0].cpu().numpy()


def middle_slice(file: Path, network: Correspondence) -> Tensor:
    """The middle of a recording as the network's input, padded with silence if it is too short.

    Float32 (samples,), or (2, samples) for a network of two channels. Raises EarshotError for a file that is no sound.
    """
    sound = resample(*read_sound_file(file), network.audio_rate, network.audio_channels)
    start = max((len(sound) - network.audio_samples) // 2, 0)
    return torch.from_numpy(cut_slices(sound, [start], network.audio_samples)[0])
