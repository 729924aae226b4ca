"""The decoder of the frames that a network reads."""

import cv2
import numpy as np

JPEG_START = b"\xff\xd8"
# Frames lie as they were shown: extraction turned them, and a tag that says otherwise would turn them again.
RGB = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def decode_jpeg(data: bytes | memoryview) -> np.ndarray:
    """The pixels of a JPEG, uint8 (height, width, 3), as torchvision.io.decode_jpeg gives them.

    Raises ValueError for data that is no whole JPEG.
    """
    is_jpeg = bytes(data[: len(JPEG_START)]) == JPEG_START
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), RGB) if is_jpeg else None
    if pixels is None:
        raise ValueError(f"{len(data)} bytes are no whole JPEG")
    return pixels
