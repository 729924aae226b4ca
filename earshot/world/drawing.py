"""Pen and colors: drawing one object in its own coordinates, and recording its extent."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: the weights of red, green and blue in brightness

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Pose:
    """The pose of an object: center and half its height in pixels, its relative width, its roll in radians."""

    x: float
    y: float
    scale: float
    stretch: float = 1.0
    roll: float = 0.0
    mirrored: bool = False

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Convert object coordinates (..., 2), x right and y down, the object in about [-1, 1], to pixels."""
        across = points[..., 0] * self.stretch * (-self.scale if self.mirrored else self.scale)
        down = points[..., 1] * self.scale
        cosine, sine = np.cos(self.roll), np.sin(self.roll)
        return np.stack([self.x + cosine * across - sine * down, self.y + sine * across + cosine * down], axis=-1)


@dataclass(frozen=True)
class Colors:
    """The three colors of an object: `body` contrasts with the background, `detail` and `edge` with the body."""

    body: Color
    detail: Color
    edge: Color


def color_of_brightness(rng: np.random.Generator, brightness: float) -> Color:
    """A random hue and saturation at a given brightness (0 to 1)."""
    hue = rng.random(3)
    color = brightness + rng.uniform(0.0, 0.9) * (hue - LUMA @ hue)
    return tuple((np.clip(color, 0, 1) * 255).astype(int).tolist())


def brightness_of(color: Color | np.ndarray) -> float:
    """Brightness from 0 to 1."""
    return float(LUMA @ np.asarray(color)) / 255


def brightness_apart(rng: np.random.Generator, other: float, gap: float) -> float:
    """A brightness at least `gap` from `other`: darker or lighter at random, so that it does not reveal a kind."""
    darker, lighter = max(other - gap - 0.03, 0.0), max(0.97 - other - gap, 0.0)
    value = rng.uniform(0, darker + lighter)
    return 0.03 + value if value < darker else other + gap + value - darker


def colors_apart(rng: np.random.Generator, background: float, gap: float) -> Colors:
    """Three colors for an object in front of a background of that brightness."""
    body = color_of_brightness(rng, brightness_apart(rng, background, gap))
    inner = brightness_of(body)
    detail, edge = (color_of_brightness(rng, brightness_apart(rng, inner, 0.25)) for _ in range(2))
    return Colors(body, detail, edge)


def brightness_at(image: Image.Image, pose: Pose) -> float:
    """Mean brightness of the image behind an object, 0 to 1."""
    half = pose.scale * 0.7
    width, height = image.size
    left, top = (int(np.clip(v, 0, side - 2)) for v, side in ((pose.x - half, width), (pose.y - half, height)))
    right, bottom = (
        int(np.clip(v, low + 1, side)) for v, low, side in ((pose.x + half, left, width), (pose.y + half, top, height))
    )
    patch = image.resize((1, 1), Image.Resampling.BOX, box=(left, top, right, bottom))
    return brightness_of(np.asarray(patch)[0, 0])


@dataclass(frozen=True)
class Mask:
    """Where an object is drawn a second time, filled with `value` alone: an image of mode L as large as the first."""

    image: Image.Image
    value: int


class Sketch:
    """A pen for one object: draws in the object's coordinates and records the extent of the drawing, in pixels."""

    def __init__(self, image: Image.Image, pose: Pose, colors: Colors, mask: Mask | None = None):
        self.pen = ImageDraw.Draw(image)
        self.mask_pen = ImageDraw.Draw(mask.image) if mask else None
        self.value = mask.value if mask else 0
        self.size = image.size
        self.pose = pose
        self.body, self.detail, self.edge = colors.body, colors.detail, colors.edge
        self.drawn: list[np.ndarray] = []  # all points so far, (points, 2) each

    def _placed(self, points: ArrayLike) -> np.ndarray:
        placed = self.pose.to_image(np.asarray(points, dtype=np.float64))
        self.drawn.append(placed.reshape(-1, 2))
        return placed

    def polygon(self, points: ArrayLike, fill: Color) -> None:
        """Fill an outline, (points, 2)."""
        self._fill(self._placed(points).ravel().tolist(), fill)

    def polygons(self, outlines: np.ndarray, fills: list[Color]) -> None:
        """Fill outlines with equal numbers of points, (outlines, points, 2), each with its color."""
        placed = self._placed(outlines).reshape(len(outlines), -1).tolist()
        for outline, fill in zip(placed, fills, strict=True):
            self._fill(outline, fill)

    def lines(self, strokes: np.ndarray, fill: Color, thickness: float) -> None:
        """Draw strokes with equal numbers of points, (strokes, points, 2); thickness in object units."""
        width = max(2, round(thickness * self.pose.scale))
        for stroke in self._placed(strokes).reshape(len(strokes), -1).tolist():
            self.pen.line(stroke, fill=fill, width=width)
            if self.mask_pen:
                self.mask_pen.line(stroke, fill=self.value, width=width)

    def ellipse(self, x: float, y: float, across: float, down: float, fill: Color, tilt: float = 0.0) -> None:
        """Fill an ellipse given by its center and half axes, tilted by an angle in radians."""
        self.polygon(oval(x, y, across, down, tilt), fill)

    def _fill(self, outline: list[float], fill: Color) -> None:
        self.pen.polygon(outline, fill=fill)
        if self.mask_pen:
            self.mask_pen.polygon(outline, fill=self.value)

    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the drawing, in pixels, beyond the image's borders if it is truncated."""
        drawn = np.concatenate(self.drawn)
        (left, top), (right, bottom) = drawn.min(0).tolist(), drawn.max(0).tolist()
        return left, top, right, bottom


_TURN = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def oval(x: float, y: float, across: float, down: float, tilt: float = 0.0) -> np.ndarray:
    """The outline of an ellipse, (24, 2)."""
    u, v = across * np.cos(_TURN), down * np.sin(_TURN)
    return np.stack([x + np.cos(tilt) * u - np.sin(tilt) * v, y + np.sin(tilt) * u + np.cos(tilt) * v], axis=-1)


def rectangle(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    """The outline of a rectangle, (4, 2)."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
