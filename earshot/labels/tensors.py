"""Tensors that the stage label fits, in safetensors files, which cannot run code."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from earshot.core.errors import EarshotError


def read_tensors(path: Path, shapes: Mapping[str, tuple[int | None, ...]]) -> list[np.ndarray]:
    """The float32 tensors of these names, in order; None in a shape stands for any size.

    Raises EarshotError if the file is missing or damaged, or a tensor is missing, of another shape or not finite.
    """
    try:
        tensors = load_file(path)
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error}); the stage label writes it") from None
    except SafetensorError as error:
        raise EarshotError(f"{path}: is not a whole safetensors file ({error}); run the stage label again") from None
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            raise EarshotError(f"{path}: has no tensor {name}; run the stage label again")
        sizes = zip(tensor.shape, shape, strict=False)
        if tensor.dtype != np.float32 or tensor.ndim != len(shape) or any(b not in (a, None) for a, b in sizes):
            expected = str(shape).replace("None", "any number")
            message = f"{name} is {tensor.dtype} {tensor.shape}, expected float32 {expected}"
            raise EarshotError(f"{path}: {message}; run the stage label again")
        if not np.isfinite(tensor).all():
            raise EarshotError(f"{path}: {name} holds values that are not finite; run the stage label again")
    return [tensors[name] for name in shapes]
