"""Reads image files as an encoder's input."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.errors import EarshotError
from earshot.core.untrusted import MAX_IMAGE_PIXELS, read_document
from earshot.networks.decoders import decode_jpeg, decode_png

FORMATS = ("JPEG", "PNG")


def read_whole_image(file: Path) -> Tensor:
    """A JPEG or PNG at its own size: uint8 (3, height, width).

    Raises EarshotError for a file that is missing, of another format, or of more than 50 megapixels.
    """
    try:
        return _decode(read_document(file))
    except (OSError, RuntimeError, ValueError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EarshotError(f"{file}: cannot be read as an image ({reason}); restore the file") from None


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
    missing = [file for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more of {len(files)}" if len(missing) > 1 else ""
        raise EarshotError(f"{missing[0]}{more}: no such image, but the benchmark's lists name it; restore the files")


def _decode(data: bytes) -> Tensor:
    """uint8 (3, height, width); Pillow reads what the others cannot, such as CMYK JPEGs."""
    # Pillow reads the header alone. Its other formats would start programs (EPS) or decoders that nobody has asked for.
    with Image.open(io.BytesIO(data), formats=FORMATS) as header:
        if header.width * header.height > MAX_IMAGE_PIXELS:
            size = f"{header.width} x {header.height}"
            raise ValueError(f"{size} pixels, expected at most {MAX_IMAGE_PIXELS / 1e6:g} megapixels")
        try:
            image = decode_png(data) if header.format == "PNG" else decode_jpeg(data)
            return image if image.dtype == torch.uint8 else _eight_bits(image)
        except RuntimeError:
            return torch.from_numpy(np.array(header.convert("RGB"))).permute(2, 0, 1)


def _eight_bits(image: Tensor) -> Tensor:
    """uint16 scaled to uint8, rounded: a PNG of 16 bits, whatever its file is called."""
    return ((image.to(torch.int32) * 255 + 32767) // 65535).to(torch.uint8)
