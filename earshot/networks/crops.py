"""Decodes JPEG frames to images of one size, cropped, mirrored and with other colors, in uint8 throughout."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from earshot.networks.decoders import decode_jpeg

LUMA = 0.299, 0.587, 0.114  # shares of red, green and blue of NTSC, by which contrast and grays are measured

TOGETHER = 8  # images; each kind of work on all of them before the next is a sixth faster than image by image


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
    """Decode JPEG frames, and crop, resize and change them: uint8, (frames * crops, 3, size, size).

    Without changes, the crop is the middle square. The crops of one frame, and their changes, are consecutive.

    Raises:
        ValueError: a frame cannot be decoded as JPEG.
    """
    return _crops(map(decode_jpeg, frames), len(frames), size, changes, crops)


def crop_images(
    images: Iterable[Tensor], count: int, size: int, changes: Changes | None = None, crops: int = 1
) -> Tensor:
    """Crops of `count` images, uint8 (3, height, width) each, as `crop_frames` cuts and changes them."""
    return _crops((image.permute(1, 2, 0).numpy() for image in images), count, size, changes, crops)


def _crops(images: Iterator[np.ndarray], count: int, size: int, changes: Changes | None, crops: int) -> Tensor:
    """Crops of `count` images, uint8 (height, width, 3) each.

    All work on an image is a few calls of libraries in C, which threads run beside each other.
    """
    batch = torch.empty((count * crops, 3, size, size), dtype=torch.uint8)
    boxes = [None] * len(batch) if changes is None or changes.boxes is None else changes.boxes.tolist()
    colors = None if changes is None or changes.colors is None else affine_colors(changes)
    for start in range(0, len(batch), TOGETHER * crops):
        part = slice(start, start + TOGETHER * crops)
        several = [image for image in islice(images, TOGETHER) for _ in range(crops)]
        cut = [_resized(image, size, box) for image, box in zip(several, boxes[part], strict=True)]
        if changes is not None:
            mirrored = zip(cut, changes.mirrored[part], strict=True)
            cut = [cv2.flip(pixels, 1) if flip else pixels for pixels, flip in mirrored]
        if colors is not None:
            cut = [recolor(pixels, matrix) for pixels, matrix in zip(cut, colors[part], strict=True)]
        for pixels, planes in zip(cut, batch[part].numpy(), strict=True):
            cv2.split(pixels, list(planes))  # into the batch
    return batch


def _resized(image: np.ndarray, size: int, box: Sequence[float] | None) -> np.ndarray:
    """The part of an image (height, width, 3) in a box: (size, size, 3)."""
    top, left, height, width = crop_roi(image.shape[0], image.shape[1], box)
    # Without gaps between rows, and with color values side by side as in channels_last, resizing is twice as fast.
    part = torch.from_numpy(np.ascontiguousarray(image[top : top + height, left : left + width]))
    part = part[None].permute(0, 3, 1, 2)
    resized = functional.interpolate(part, (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def affine_colors(changes: Changes) -> np.ndarray:
    """The matrices of `recolor`, (images, 3, 4).

    Brightness, contrast, saturation and hue are affine in a pixel's color x. With brightness b, contrast c, mean luma m
    of the image, and T for hue and saturation, which keeps grays: T b (c x + (1 - c) m) = b c T x + b (1 - c) m. The
    last column is to be multiplied by m.
    """
    matrices = changes.colors * (changes.brightness * changes.contrast)[:, None, None]
    offsets = changes.brightness * (1 - changes.contrast)
    return np.concatenate([matrices, np.repeat(offsets[:, None, None], 3, axis=1)], axis=2)


def recolor(pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Change the colors of an image, uint8 (height, width, 3), by a matrix of `affine_colors`, (3, 4).

    OpenCV computes in fixed point: of fifty values, one is off by one.
    """
    red, green, blue, _ = cv2.mean(pixels)
    affine = colors.copy()
    affine[:, 3] *= LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return cv2.transform(pixels, affine)


def crop_roi(height: int, width: int, box: Sequence[float] | np.ndarray | None) -> tuple[int, int, int, int]:
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
