"""The decoder of JPEG of torchvision, loaded without torchvision itself.

The package torchvision imports all of its models, and with them torch's compiler, which takes as long as torch itself.
Its decoders are a library of their own, which registers the operations `torch.ops.image`.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RGB = 3  # torchvision.io.ImageReadMode.RGB


def decode_jpeg(data: bytes) -> Tensor:
    """A JPEG as uint8 (3, height, width), as torchvision.io.decode_jpeg gives it.

    Raises RuntimeError for data that is not JPEG.
    """
    return _operations().decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), RGB)


@cache
def _operations() -> Any:
    package = find_spec("torchvision")
    if package is None:
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
    (library,) = Path(package.submodule_search_locations[0]).glob("image*.so")  # type: ignore[index]
    torch.ops.load_library(str(library))
    return torch.ops.image
