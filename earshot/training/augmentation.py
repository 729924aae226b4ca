"""Random changes of training images: crops, flips and colors.

All random numbers come from the caller's generator before any image is read, so that every batch is reproducible.
"""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.json_files import read_json
from earshot.networks.crops import LUMA, Changes
from earshot.training.sound_augmentation import SoundAugmentation

AUGMENTATION_FILE = "augmentation.json"  # of a folder of correspondence networks
ASPECTS = (3 / 4, 4 / 3)  # of a crop, as in Inception's training (Szegedy 2015, section 6)

# Luma and the two chroma axes of NTSC. Hue rotates the chroma plane, saturation scales it; luma and grays stay.
RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class Augmentation:
    """How strongly images are changed; the parameters of `pretrain` of the same names.

    Args:
        crop_side: side of a random square, as a share of the image's shorter side: 224 of 256 px are .875, as in L3-Net
            (Arandjelovic & Zisserman 2017, section 2.2); 0 crops by area instead.
        crop_min_scale, crop_max_scale: smallest and largest share of an image's area in a random crop; a minimum of 1
            takes the middle square, as validation does.
        brightness, contrast, saturation: each varies by a factor of 1 - strength to 1 + strength.
        hue: rotates by up to this share of a full turn, either way.
        grayscale_prob: share of the images that lose their color.
        flip_prob: share of the images that are mirrored.
    """

    crop_side: float = 0.0
    crop_min_scale: float = 1.0
    crop_max_scale: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale_prob: float = 0.0
    flip_prob: float = 0.0

    def draw(self, images: int, generator: np.random.Generator) -> Changes:
        """Draw the changes of this many images."""
        chances = generator.random((images, 10))
        strengths = np.array([self.brightness, self.contrast, self.saturation])
        factors = 1 + strengths * (2 * chances[:, :3] - 1)
        turns = self.hue * (2 * chances[:, 3] - 1)
        saturation = np.where(chances[:, 4] < self.grayscale_prob, 0, factors[:, 2])
        return Changes(
            boxes=self._boxes(chances[:, 5:9]),
            mirrored=chances[:, 9] < self.flip_prob,
            colors=color_matrices(saturation, turns) if strengths.any() or self.hue or self.grayscale_prob else None,
            brightness=factors[:, 0],
            contrast=factors[:, 1],
        )

    def _boxes(self, chances: np.ndarray) -> np.ndarray | None:
        if self.crop_side:
            return np.column_stack([np.full(len(chances), self.crop_side), chances[:, 2:]])
        if self.crop_min_scale == 1:
            return None
        share = self.crop_min_scale + (self.crop_max_scale - self.crop_min_scale) * chances[:, 0]
        low, high = np.log(ASPECTS)
        return np.column_stack([share, np.exp(low + (high - low) * chances[:, 1]), chances[:, 2:]])


def augmentation_of(params: Any) -> Augmentation:
    """The augmentation of the parameters of a training (`earshot.params.training.Training`)."""
    return Augmentation(
        **{field.name: getattr(params, field.name) for field in fields(Augmentation) if hasattr(params, field.name)}
    )


def write_augmentation(folder: Path, augmentation: Augmentation, sound: SoundAugmentation) -> None:
    """Write how a network's training changed images and sounds, beside its weights."""
    with write_atomically(folder / AUGMENTATION_FILE) as path:
        changes = {**asdict(augmentation), "gain_jitter": sound.gain_jitter, **sound.stated()}
        path.write_text(json.dumps(changes, indent=2) + "\n")


def read_augmentation(folder: Path) -> tuple[Augmentation, SoundAugmentation]:
    """The changes of images and of sounds of the training that wrote the folder.

    Raises:
        EarshotError: the file is missing or damaged.
    """
    values = read_json(folder / AUGMENTATION_FILE, "correspond")
    try:
        sound = {each.name: values.pop(each.name) for each in fields(SoundAugmentation) if each.name in values}
        return Augmentation(**values), SoundAugmentation(gain_jitter=sound.pop("gain_jitter"), **sound)
    except (KeyError, TypeError) as error:
        actual = f"{folder / AUGMENTATION_FILE}: does not hold the changes of a training ({error})"
        raise EarshotError(f"{actual}; run the stage correspond again") from None


def color_matrices(saturation: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Matrices (images, 3, 3) that scale chroma by `saturation` and rotate it by `turns`."""
    angle = 2 * math.pi * turns
    chroma = np.zeros((len(turns), 3, 3))
    chroma[:, 0, 0] = 1
    chroma[:, 1, 1] = chroma[:, 2, 2] = saturation * np.cos(angle)
    chroma[:, 2, 1] = saturation * np.sin(angle)
    chroma[:, 1, 2] = -chroma[:, 2, 1]
    return np.linalg.inv(RGB_TO_YIQ) @ chroma @ RGB_TO_YIQ
