"""What is changed at random in the pictures that a network trains on: where they are cropped, and their colours.

Whatever is random is drawn before the work from a generator that the caller gives, so that a batch can be made again.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earshot.networks.crops import Changes

ASPECTS = (3 / 4, 4 / 3)  # of a crop, as in Inception's training (Szegedy 2015, section 6)
HUE_TURNS = 1 / 4  # of a whole turn at jitter 1: the proportion of SimCLR (Chen 2020, appendix A), .2 for .8

# Luma and the two chroma axes of NTSC. Hue turns the chroma plane, saturation scales it, luma and greys stay.
RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class Augmentation:
    """How strongly pictures are changed; the values of `pretrain` of the same names.

    Args:
        crop: smallest share of the picture's area that a random crop shows; 1 shows the middle square, as validation
            does.
        crop_largest: largest share.
        jitter: brightness, contrast and saturation vary by factors 1 - jitter to 1 + jitter, hue by a quarter as many
            turns.
        grey: share of the pictures that lose their colour.
        flip: mirror half of the pictures.
    """

    crop: float = 1.0
    crop_largest: float = 1.0
    jitter: float = 0.0
    grey: float = 0.0
    flip: bool = False

    def draw(self, pictures: int, generator: np.random.Generator) -> Changes:
        """What happens to each of so many pictures."""
        chances = generator.random((pictures, 10))
        factors = 1 + self.jitter * (2 * chances[:, :3] - 1)  # brightness, contrast, saturation
        turns = self.jitter * HUE_TURNS * (2 * chances[:, 3] - 1)
        saturation = np.where(chances[:, 4] < self.grey, 0, factors[:, 2])
        return Changes(
            boxes=self._boxes(chances[:, 5:9]),
            mirrored=chances[:, 9] < (0.5 if self.flip else 0),
            colours=color_matrices(saturation, turns) if self.jitter or self.grey else None,
            brightness=factors[:, 0],
            contrast=factors[:, 1],
        )

    def _boxes(self, chances: np.ndarray) -> np.ndarray | None:
        if self.crop == 1:
            return None
        share = self.crop + (self.crop_largest - self.crop) * chances[:, 0]
        low, high = np.log(ASPECTS)
        return np.column_stack([share, np.exp(low + (high - low) * chances[:, 1]), chances[:, 2:]])


def recolour(pictures: Tensor, changes: Changes) -> Tensor:
    """Change brightness, contrast, saturation and hue of uint8 pictures (pictures, 3, height, width), on their device.

    All four are affine in a pixel's colour x: with brightness b, contrast c, mean luma m of the picture and T for hue
    and saturation, which leave greys alone, T b (c x + (1 - c) m) = b c T x + b (1 - c) m.
    """
    if changes.colours is None:
        return pictures
    like: dict[str, Any] = {"device": pictures.device, "dtype": torch.float32}
    matrices = torch.as_tensor(changes.colours * (changes.brightness * changes.contrast)[:, None, None], **like)
    grey = torch.as_tensor(changes.brightness * (1 - changes.contrast), **like)
    luma = torch.as_tensor(RGB_TO_YIQ[0], **like)
    changed = torch.empty_like(pictures)
    several = len(pictures) if pictures.is_cuda else 1  # one picture and its colours stay in the cache of a CPU
    values = torch.empty((several, 3, pictures[0, 0].numel()), **like)
    colours = torch.empty_like(values)
    for start in range(0, len(pictures), several):
        part = slice(start, start + several)
        values.copy_(pictures[part].flatten(2))
        offset = (values.mean(2) @ luma * grey[part] + 0.5)[:, None, None]  # a half, since what follows cuts
        torch.baddbmm(offset, matrices[part], values, out=colours)
        changed[part] = colours.clamp_(0, 255).view_as(changed[part])
    return changed


def color_matrices(saturation: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Matrices (pictures, 3, 3) that scale chroma by `saturation` and turn it by `turns`."""
    angle = 2 * math.pi * turns
    chroma = np.zeros((len(turns), 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(angle)
    chroma[:, 2, 1] = saturation * np.sin(angle)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    return np.linalg.inv(RGB_TO_YIQ) @ chroma @ RGB_TO_YIQ
