"""From JPEG frames to pictures of one size, cropped and mirrored, as uint8 from end to end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.io import ImageReadMode, decode_jpeg


@dataclass(frozen=True)
class Changes:
    """What happens to each picture of a batch; None where nothing does.

    Args:
        boxes: share of the area, width by height, place from left to right and from top to bottom, (pictures, 4).
        mirrored: bool, (pictures,).
        colours: what hue and saturation make of a colour, (pictures, 3, 3).
        brightness, contrast: factors, (pictures,).
    """

    boxes: np.ndarray | None
    mirrored: np.ndarray
    colors: np.ndarray | None
    brightness: np.ndarray
    contrast: np.ndarray

    def __getitem__(self, part: slice | np.ndarray) -> "Changes":
        """What happens to a part of the pictures, or to those of these numbers, (pictures,)."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        chosen: dict[str, Any] = {name: None if value is None else value[part] for name, value in values}
        return Changes(**chosen)


def crop_frames(frames: Sequence[bytes], size: int, changes: Changes | None = None, crops: int = 1) -> Tensor:
    """Decode JPEG frames, crop and resize them: uint8, (frames * crops, 3, size, size).

    Without changes the middle square is shown. The crops of one frame, and their changes, stand beside one another.

    Raises:
        RuntimeError: a frame is no JPEG that can be decoded.
    """
    images = torch.empty((len(frames) * crops, 3, size, size), dtype=torch.uint8)
    for place, frame in enumerate(frames):
        image = decode_jpeg(torch.frombuffer(bytearray(frame), dtype=torch.uint8), mode=ImageReadMode.RGB)
        for number in range(place * crops, (place + 1) * crops):
            images[number] = _crop(image, size, changes, number)
    return images


def _crop(image: Tensor, size: int, changes: Changes | None, number: int) -> Tensor:
    """One picture (3, height, width) as change `number` has it: (3, size, size)."""
    boxes = None if changes is None else changes.boxes
    full_height, full_width = image.shape[1:]
    top, left, height, width = crop_roi(full_height, full_width, None if boxes is None else boxes[number])
    part = image[None, :, top : top + height, left : left + width]
    part = part.contiguous(memory_format=torch.channels_last)  # as decoded; resizing is a quarter faster
    if changes is not None and changes.mirrored[number]:
        part = part.flip(-1)
    return functional.interpolate(part, (size, size), mode="bilinear", antialias=True)[0]


def crop_roi(height: int, width: int, box: np.ndarray | None) -> tuple[int, int, int, int]:
    """Top, left, height and width in pixels of a box in a picture of that size, or of its middle square."""
    if box is None:
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side
    share, aspect, across, down = box
    area = share * height * width
    wide = min(max(round(math.sqrt(area * aspect)), 1), width)
    high = min(max(round(math.sqrt(area / aspect)), 1), height)
    return int(down * (height - high + 1)), int(across * (width - wide + 1)), high, wide
