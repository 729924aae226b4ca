"""Reads image files as an encoder's input."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.errors import EarshotError
from earshot.core.untrusted import is_file
from earshot.media.guarded_files import read_image_file


def read_whole_image(file: Path) -> Tensor:
    """A JPEG or PNG at its own size: uint8 (3, height, width). Raises EarshotError as `read_image_file`."""
    return torch.from_numpy(read_image_file(file)).permute(2, 0, 1)


class ImageMemory:
    """Reads image files again and again; those that fit `most` bytes together are decoded once.

    Args:
        read: what a file becomes, such as `read_whole_image`.
        most: bytes.
    """

    def __init__(self, read: Callable[[Path], Tensor] = read_whole_image, most: int = 256 << 20) -> None:
        self._read, self._left = read, most
        self._images: dict[Path, Tensor] = {}

    def read(self, file: Path) -> Tensor:
        """What the file becomes, which may not be changed in place. Threads may share this."""
        image = self._images.get(file)
        if image is None:
            image = self._read(file)
            if image.nbytes <= self._left:
                self._left -= image.nbytes
                self._images[file] = image
        return image


def read_image(file: Path, resize: int, crop: int) -> Tensor:
    """The center crop x crop px of an image resized to resize x resize px: uint8 (3, crop, crop).

    Raises EarshotError for a file that is missing or no image.
    """
    image = read_whole_image(file)
    resized = interpolate(image[None], (resize, resize), mode="bilinear", antialias=True)[0]
    first = (resize - crop) // 2
    return resized[:, first : first + crop, first : first + crop]


def require_images(files: Sequence[Path]) -> None:
    """Raise EarshotError if a file is missing, before any is read."""
    missing = [file for file in files if not is_file(file)]
    if missing:
        more = f" and {len(missing) - 1} more of {len(files)}" if len(missing) > 1 else ""
        raise EarshotError(f"{missing[0]}{more}: no such image, but the benchmark's lists name it; restore the files")
