"""Frames of a video as JPEG, upright, with square pixels and a scaled short side; and their thumbnails.

The two fields of an interlaced frame are of different times, and what moves looks combed. Only the first of them, every
second line, is taken.
"""

import io
from typing import cast

import av
import av.filter
import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.reformatter import VideoReformatter
from PIL import Image

MAX_ASPECT = 8  # long side to short side; a narrower image is useless and would become huge when scaled
# libswscale writes planes of green, blue and red several times faster than interleaved pixels, and rounds better.
PLANES, RGB_PLANES = "gbrp", (2, 0, 1)


class Painter:
    """Converts frames of one video to images whose short side has `short_side` pixels.

    `pixel_aspect` is the ratio of width to height of one stored pixel; 1 if pixels are square. With `squeeze` both
    sides have `short_side` pixels (objects-that-sound, utils/extractor.py, resizes whole frames so).
    """

    def __init__(self, short_side: int, quality: int = 0, pixel_aspect: float = 1.0, *, squeeze: bool = False) -> None:
        self.short_side, self.quality, self.pixel_aspect, self.squeeze = short_side, quality, pixel_aspect, squeeze
        self._scaler = VideoReformatter()

    def jpeg(self, frame: av.VideoFrame) -> bytes:
        """The frame as JPEG. Raises ValueError if one side is over eight times as long as the other."""
        file = io.BytesIO()
        self.image(frame).save(file, "JPEG", quality=self.quality)
        return file.getvalue()

    def image(self, frame: av.VideoFrame) -> Image.Image:
        """The frame as an image. Raises ValueError if one side is over eight times as long as the other."""
        width, height = self._size(frame)
        scaled = self._scaler.reformat(_progressive(frame), width, height, PLANES, interpolation="BICUBIC", threads=1)
        return _upright(_image(scaled), _display_matrix(frame))

    def _size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Width and height of the image in px, before it is turned upright."""
        width, height = frame.width * self.pixel_aspect, frame.height
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise ValueError(f"an image of {frame.width} x {frame.height} pixels displayed as {width / height:.3g} : 1")
        if self.squeeze:
            return self.short_side, self.short_side
        scale = self.short_side / min(width, height)
        return round(width * scale), round(height * scale)


class Thumbnailer:
    """Converts frames of one video to gray thumbnails of `side` x `side` pixels, stretched and not turned upright."""

    def __init__(self, side: int) -> None:
        self.side = side
        self._scaler = VideoReformatter()

    def gray(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame's thumbnail, uint8 (side, side), each pixel the mean of its part of the frame."""
        scaled = self._scaler.reformat(
            _progressive(frame), self.side, self.side, "gray", interpolation="AREA", threads=1
        )
        plane = scaled.planes[0]
        return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: self.side, : self.side].copy()


def _progressive(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame, or the upper field of an interlaced one, which has half of its lines."""
    if not frame.interlaced_frame:
        return frame
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("field", "type=top"), graph.add("buffersink")).configure()
    graph.push(frame)
    return cast(av.VideoFrame, graph.pull())


def _image(frame: av.VideoFrame) -> Image.Image:
    size = (frame.width, frame.height)
    planes = [(np.frombuffer(memoryview(plane), np.uint8), plane.line_size) for plane in frame.planes]
    colors = [Image.frombuffer("L", size, data, "raw", "L", line_size, 1) for data, line_size in planes]
    return Image.merge("RGB", [colors[index] for index in RGB_PLANES])


def _display_matrix(frame: av.VideoFrame) -> np.ndarray:
    """The matrix ((a, b), (c, d)) of the stored image: a point (x, y) is displayed at (ax + cy, bx + dy)."""
    side_data = cast(SideDataContainer, frame.side_data)  # PyAV's stubs know only one of its keys
    if Type.DISPLAYMATRIX not in side_data:
        return np.eye(2, dtype=np.int32)
    data = side_data[Type.DISPLAYMATRIX]
    # Nine 32-bit numbers (a, b, u, c, d, v, x, y, w), whose scale does not matter here.
    return np.frombuffer(bytes(data), np.int32)[[0, 1, 3, 4]].reshape(2, 2)


def _upright(image: Image.Image, matrix: np.ndarray) -> Image.Image:
    """Apply the quarter turns and reflections of a display matrix; any other angle counts as the nearest of them."""
    (a, b), (c, d) = matrix.astype(np.int64)
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(Image.Transpose.TRANSPOSE)
        mirrored, flipped = c < 0, b < 0
    else:
        mirrored, flipped = a < 0, d < 0
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if flipped else image
