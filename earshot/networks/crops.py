"""Decodes JPEG frames to images of one size, cropped and mirrored, in uint8 throughout."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earshot.networks.decoders import decode_jpeg


@dataclass(frozen=True)
class Changes:
    """The random changes of each image of a batch; None for no change.

    Args:
        boxes: share of the area, aspect ratio (width / height), horizontal and vertical position, (images, 4); or, of
            squares, the share of the image's shorter side and both positions, (images, 3).
        mirrored: bool, (images,).
        colors: color matrices of hue and saturation, (images, 3, 3).
        brightness, contrast: factors, (images,).
    """

    boxes: np.ndarray | None
    mirrored: np.ndarray
    colors: np.ndarray | None
    brightness: np.ndarray
    contrast: np.ndarray

    def __getitem__(self, part: slice | np.ndarray) -> "Changes":
        """The changes of a slice of the images, or of the images at these indices."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        selected: dict[str, Any] = {name: None if value is None else value[part] for name, value in values}
        return Changes(**selected)


def crop_frames(frames: Sequence[bytes], size: int, changes: Changes | None = None, crops: int = 1) -> Tensor:
    """Decode JPEG frames, crop and resize them: uint8, (frames * crops, 3, size, size).

    Without changes, the crop is the middle square. The crops of one frame, and their changes, are consecutive.

    Raises:
        RuntimeError: a frame cannot be decoded as JPEG.
    """
    return crop_images(map(decode_jpeg, frames), len(frames), size, changes, crops)


def crop_images(
    images: Iterable[Tensor], count: int, size: int, changes: Changes | None = None, crops: int = 1
) -> Tensor:
    """Crops of `count` images, uint8 (3, height, width) each, as `crop_frames` cuts them."""
    cut = torch.empty((count * crops, 3, size, size), dtype=torch.uint8)
    for place, image in enumerate(images):
        for number in range(place * crops, (place + 1) * crops):
            cut[number] = _crop(image, size, changes, number)
    return cut


def _crop(image: Tensor, size: int, changes: Changes | None, number: int) -> Tensor:
    """An image (3, height, width) after change `number`: (3, size, size)."""
    boxes = None if changes is None else changes.boxes
    full_height, full_width = image.shape[1:]
    top, left, height, width = crop_roi(full_height, full_width, None if boxes is None else boxes[number])
    part = image[None, :, top : top + height, left : left + width]
    part = part.contiguous(memory_format=torch.channels_last)  # as decoded; resizing is a quarter faster
    if changes is not None and changes.mirrored[number]:
        part = part.flip(-1)
    return functional.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]


def crop_roi(height: int, width: int, box: np.ndarray | None) -> tuple[int, int, int, int]:
    """Top, left, height and width in px of a box in an image of that size; of the middle square without a box."""
    if box is None:
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side
    *shape, across, down = box
    if len(shape) == 1:
        wide = high = max(round(shape[0] * min(height, width)), 1)
    else:
        share, aspect = shape
        area = share * height * width
        wide = min(max(round(math.sqrt(area * aspect)), 1), width)
        high = min(max(round(math.sqrt(area / aspect)), 1), height)
    return int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide
