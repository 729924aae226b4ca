"""Decoders of images: torchvision's of JPEG, loaded without torchvision itself, and OpenCV's of PNG.

The package torchvision imports all of its models, and with them torch's compiler, which takes as long as torch itself.
Its decoders are a library of their own, which registers the operations `torch.ops.image`.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode_jpeg(data: bytes) -> Tensor:
    """A JPEG as uint8 (3, height, width), as torchvision.io.decode_jpeg gives it.

    Raises RuntimeError for data that is not JPEG.
    """
    return _operations().decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), RGB)


def decode_png(data: bytes) -> Tensor:
    """A PNG as uint8 or uint16 (3, height, width), without its transparency, as torchvision.io.decode_png gives it.

    OpenCV decodes it: torchvision's decoder of PNG ends the process at one with damaged data.

    Raises RuntimeError for data that is no whole PNG.
    """
    import cv2  # takes as long to import as torch, and most images are JPEG

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise RuntimeError("not a whole PNG")
    colors = image[:, :, 2::-1] if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
    return torch.from_numpy(np.ascontiguousarray(colors.transpose(2, 0, 1)))


@cache
def _operations() -> Any:
    package = find_spec("torchvision")
    if package is None:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
    (library,) = Path(package.submodule_search_locations[0]).glob("image*.so")  # type: ignore[index]
    torch.ops.load_library(str(library))
    return torch.ops.image
