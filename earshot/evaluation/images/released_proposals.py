"""The proposals of selective search that were released for VOC2007, in MATLAB files.

A child process reads them, because a few kB of such a file unpack to gigabytes.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.io

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import Failure, Limits, guarded_iter
from earshot.core.untrusted import open_regular

LAYOUT = "the cell arrays `images` (names) and `boxes` (rows of ymin, xmin, ymax, xmax from 1), in MATLAB 5"
# The file of trainval has ten million boxes.
READING = Limits(300.0, memory=2 << 30, file_size=0, starts_processes=False)


def read_released(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each image and its proposals, float32 (proposals, 4), in a released file.

    Raises EarshotError for a file of another layout.
    """
    for result in guarded_iter(_released, file, replace(READING, reads=(file,))):
        if isinstance(result, Failure):
            reason = f"not within {READING.seconds:g} s" if result.hung else f"its reader ended: {result.ending}"
            reason = f"needs more than {(READING.memory or 0) >> 20} MB of memory" if result.out_of_memory else reason
            raise EarshotError(f"{file}: cannot be read ({reason}); expected {LAYOUT}")
        if isinstance(result, str):
            raise EarshotError(f"{file}: {result}, expected {LAYOUT}")
        name, data = result
        top, left, bottom, right = np.frombuffer(data, np.float32).reshape(-1, 4).T
        yield name, np.column_stack([left - 1, top - 1, right, bottom])


def _released(file: Path) -> Iterator[tuple[str, bytes] | str]:
    """The work of a child: the name of each image and its rows as float32; at a fault a message instead."""
    try:
        with open_regular(file) as opened:
            arrays = scipy.io.loadmat(opened, variable_names=["images", "boxes"])
    except MemoryError:
        raise
    except Exception as error:  # all kinds of errors for a file that is not MATLAB's
        yield f"cannot be read ({str(error)[:200]})"
        return
    images, boxes = (arrays.get(name, np.empty(0)).ravel() for name in ("images", "boxes"))
    if images.dtype != object or len(images) != len(boxes) or not len(images):
        yield f"holds {len(images)} images and {len(boxes)} boxes in cells"
        return
    for number, (name, rows) in enumerate(zip(images, boxes, strict=True), 1):
        rows, name = np.asarray(rows), np.asarray(name).ravel()
        if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf" or not np.isfinite(rows).all():
            yield f"boxes {number} are {rows.dtype} {rows.shape}"
            return
        yield Path(str(name[0]) if len(name) else "").stem, rows.astype(np.float32).tobytes()
