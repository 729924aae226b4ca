"""A network's maps of where in an image a sound comes from, and their scores against the truth.

The map is scaled up to 224 x 224, bilinear. Positive is what lies above

- its median, half of the picture (`median`: the code of Chen 2021 and its successors, on both sets), or
- half-way from its least to its greatest value (`half`: a fixed threshold, as cIoU was defined by Senocak 2018).

cIoU is the truth inside the positive region, over the whole truth and the positive region where there is none of it.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.errors import EarshotError
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.device import get_device
from earshot.scenes.audio_slices import cut_slices, read_sound, resample

SIDE = 224  # px of the map that is measured, as in both papers' code
RULES = ("median", "half")


def score(maps: np.ndarray, truths: np.ndarray) -> dict[str, np.ndarray]:
    """cIoU by both rules, and whether the peak is inside a box, of maps and truths (pictures, SIDE, SIDE)."""
    pairs = list(zip(maps, truths, strict=True))
    found = {f"ciou_{rule}": np.array([ciou(positive(each, rule), truth) for each, truth in pairs]) for rule in RULES}
    return found | {"peak": np.array([float(truth.flat[each.argmax()] > 0) for each, truth in pairs])}


def positive(values: np.ndarray, rule: str) -> np.ndarray:
    """Where a map says that the sound comes from, bool (SIDE, SIDE); everywhere for one that is the same everywhere."""
    lowest, highest = values.min(), values.max()
    if lowest == highest:
        return np.ones(values.shape, bool)
    return values > (np.median(values) if rule == "median" else (lowest + highest) / 2)


def ciou(roi: np.ndarray, truth: np.ndarray) -> float:
    """Consensus intersection over union (Senocak 2018); 0 where there is no truth.

    Args:
        region: what is told, bool (height, width).
        truth: what is so, 0 to 1, (height, width).
    """
    whole = truth.sum() + (roi & (truth == 0)).sum()
    return float(truth[roi].sum() / whole) if whole else 0.0


@torch.inference_mode()
def localization_maps(network: Correspondence, seen: Tensor, heard: Tensor) -> np.ndarray:
    """A network's maps of pictures and sounds, scaled up bilinear: log-odds, float32 (pairs, SIDE, SIDE).

    Raises EarshotError where the network has no map, or one that is not finite.
    """
    device = get_device()
    maps = network.localization_map(seen.to(device), heard.to(device))
    if not torch.isfinite(maps).all():
        raise EarshotError("a map is not a finite number; wanted a network that was trained to the end")
    return interpolate(maps[:, None].float(), (SIDE, SIDE), mode="bilinear", align_corners=False)[:, 0].cpu().numpy()


def middle_slice(file: Path, network: Correspondence) -> Tensor:
    """The middle of a recording as the network wants it, silent where that is too short.

    Float32 (samples,), or (2, samples) for a network of two channels. Raises EarshotError for a file that is no sound.
    """
    sound = resample(*read_sound(file), network.audio_rate, network.audio_channels)
    start = max((len(sound) - network.audio_samples) // 2, 0)
    return torch.from_numpy(cut_slices(sound, [start], network.audio_samples)[0])
