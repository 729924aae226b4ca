"""The background of an image, which reveals nothing of the causes: sky and ground, silent objects, light and grain."""

import numpy as np
from PIL import Image, ImageFilter

from earshot.world.drawing import (
    Mask,
    Pose,
    Sketch,
    brightness_at,
    color_of_brightness,
    colors_apart,
    oval,
    rectangle,
)

Rng = np.random.Generator


def backdrop(rng: Rng, width: int, height: int) -> Image.Image:
    """Sky and ground, or one wall: random colors with a soft gradient and a cloudy texture; either may be brighter."""
    middle = rng.uniform(0.12, 0.88)
    around = np.clip(middle + rng.uniform(-0.15, 0.15, 4), 0.05, 0.95)
    sky_top, sky_low, ground_top, ground_low = (np.array(color_of_brightness(rng, b), dtype=np.float32) for b in around)
    rows, columns = height // 2, width // 2
    horizon = int(rows * rng.uniform(0.3, 0.8)) if rng.random() < 0.7 else rows
    image = np.empty((rows, columns, 3), dtype=np.float32)
    for low, high, first, last in ((0, horizon, sky_top, sky_low), (horizon, rows, ground_top, ground_low)):
        blend = np.linspace(0, 1, high - low, dtype=np.float32)[:, None]
        image[low:high] = (first + blend * (0.5 * (last - first)))[:, None]
    image += clouds(rng, columns, rows)[..., None]
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)


def clouds(rng: Rng, width: int, height: int) -> np.ndarray:
    """Smooth random texture of several grain sizes, float32 (height, width) around 0."""
    texture = np.zeros((height, width), dtype=np.float32)
    for cells in rng.integers(3, 40, 3):
        coarse = rng.standard_normal((int(cells), int(cells * rng.uniform(0.5, 2)) + 2)).astype(np.float32)
        texture += np.asarray(
            Image.fromarray(coarse * rng.uniform(2, 12)).resize((width, height), Image.Resampling.BILINEAR)
        )
    return texture


# The silent objects. All kinds of scene share them, so that they reveal none.
def _crate(pen: Sketch, rng: Rng) -> None:
    pen.polygon(rectangle(-0.9, -0.9, 0.9, 0.9), pen.body)
    pen.lines(np.array([[[-0.9, -0.9], [0.9, 0.9]], [[-0.9, 0.9], [0.9, -0.9]]]), pen.detail, 0.12)


def _pole(pen: Sketch, rng: Rng) -> None:
    pen.polygon(rectangle(-0.08, -1.4, 0.08, 1.4), pen.body)


def _disc(pen: Sketch, rng: Rng) -> None:
    pen.ellipse(0, 0, 0.8, rng.uniform(0.5, 0.9), pen.body)


def _ring(pen: Sketch, rng: Rng) -> None:
    pen.ellipse(0, 0, 0.9, 0.9, pen.body)
    pen.ellipse(0, 0, 0.5, 0.5, pen.detail)


def _triangle(pen: Sketch, rng: Rng) -> None:
    pen.polygon(rng.uniform(0.6, 1.1) * np.array([[-0.9, 0.8], [0.9, 0.8], [rng.uniform(-0.5, 0.5), -0.9]]), pen.body)


def _star(pen: Sketch, rng: Rng) -> None:
    angles = np.arange(10) * np.pi / 5
    radii = np.tile([1.0, 0.42], 5)
    pen.polygon(np.stack([radii * np.sin(angles), -radii * np.cos(angles)], -1), pen.body)


def _cross(pen: Sketch, rng: Rng) -> None:
    arm = rng.uniform(0.15, 0.3)
    pen.polygon(rectangle(-arm, -0.9, arm, 0.9), pen.body)
    pen.polygon(rectangle(-0.9, -arm, 0.9, arm), pen.body)


def _arch(pen: Sketch, rng: Rng) -> None:
    pen.polygon(np.concatenate([oval(0, -0.1, 0.8, 0.8)[12:], [[0.8, 0.9], [-0.8, 0.9]]]), pen.body)
    pen.polygon(np.concatenate([oval(0, -0.1, 0.45, 0.45)[12:], [[0.45, 0.9], [-0.45, 0.9]]]), pen.detail)


def _fence(pen: Sketch, rng: Rng) -> None:
    for x in np.linspace(-1, 1, int(rng.integers(4, 8))):
        pen.polygon(rectangle(x - 0.06, -0.7, x + 0.06, 0.7), pen.body)
    pen.polygon(rectangle(-1.1, -0.35, 1.1, -0.22), pen.body)


def _bricks(pen: Sketch, rng: Rng) -> None:
    pen.polygon(rectangle(-1, -0.7, 1, 0.7), pen.body)
    for row in range(4):
        y = -0.7 + 0.35 * row
        for x in np.arange(-0.75 + 0.25 * (row % 2), 1, 0.5):
            pen.lines(np.array([[[x, y], [x, y + 0.35]]]), pen.detail, 0.05)
        pen.lines(np.array([[[-1, y], [1, y]]]), pen.detail, 0.05)


def _zigzag(pen: Sketch, rng: Rng) -> None:
    x = np.linspace(-1, 1, int(rng.integers(6, 11)))
    pen.lines(np.stack([x, 0.35 * (-1.0) ** np.arange(len(x))], -1)[None], pen.body, 0.14)


def _bush(pen: Sketch, rng: Rng) -> None:
    for x, y, radius in rng.uniform([-0.6, -0.3, 0.3], [0.6, 0.4, 0.55], (6, 3)):
        pen.ellipse(x, y, radius, radius, pen.body if radius > 0.35 else pen.detail)


def _bottle(pen: Sketch, rng: Rng) -> None:
    pen.polygon(
        np.array(
            [[-0.4, 1], [-0.4, -0.2], [-0.15, -0.5], [-0.15, -1], [0.15, -1], [0.15, -0.5], [0.4, -0.2], [0.4, 1]]
        ),
        pen.body,
    )
    pen.polygon(rectangle(-0.4, 0.1, 0.4, 0.6), pen.detail)


def _house(pen: Sketch, rng: Rng) -> None:
    pen.polygon(np.array([[-0.8, 0.9], [-0.8, -0.1], [0, -0.9], [0.8, -0.1], [0.8, 0.9]]), pen.body)
    pen.polygon(rectangle(-0.2, 0.3, 0.2, 0.9), pen.detail)


def _blinds(pen: Sketch, rng: Rng) -> None:
    for y in np.arange(-0.8, 0.8, rng.uniform(0.2, 0.35)):
        pen.polygon(rectangle(-1.2, y, 1.2, y + 0.1), pen.body)


def _dots(pen: Sketch, rng: Rng) -> None:
    for x in np.linspace(-0.9, 0.9, int(rng.integers(3, 6))):
        for y in (-0.6, 0.0, 0.6):
            pen.ellipse(x, y, 0.17, 0.2, pen.body)


def _hatching(pen: Sketch, rng: Rng) -> None:
    start = rng.uniform(-1, 1, (24, 2))
    pen.lines(np.stack([start, start + rng.uniform(-0.5, 0.5, 2)], axis=1), pen.body, 0.05)


SILENT_OBJECTS = (
    _crate,
    _pole,
    _disc,
    _ring,
    _triangle,
    _star,
    _cross,
    _arch,
    _fence,
    _bricks,
    _zigzag,
    _bush,
    _bottle,
    _house,
    _blinds,
    _dots,
    _hatching,
)


def draw_silent_object(
    image: Image.Image, rng: Rng, pose: Pose, gap: float, mask: Mask | None = None
) -> tuple[float, float, float, float]:
    """Draw a silent object whose brightness differs from its background by at least `gap`; return its box."""
    pen = Sketch(image, pose, colors_apart(rng, brightness_at(image, pose), gap), mask)
    SILENT_OBJECTS[rng.integers(len(SILENT_OBJECTS))](pen, rng)
    return pen.box()


def place_anywhere(rng: Rng, width: int, height: int, small: float, large: float) -> Pose:
    """A random place in the image; half the height of the object lies between two shares of the short side."""
    short = min(width, height)
    return Pose(
        rng.uniform(0, width),
        rng.uniform(0, height),
        short * rng.uniform(small, large),
        rng.uniform(0.7, 1.4),
        rng.uniform(-0.4, 0.4),
        bool(rng.random() < 0.5),
    )


def light(rng: Rng, image: Image.Image, fresh: Rng) -> np.ndarray:
    """Apply light and camera to an image: gradient, gamma, contrast, tint, blur, and grain drawn from `fresh`."""
    if (blur := rng.uniform(-0.5, 0.8)) > 0.2:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    width, height = image.size
    slope_x, slope_y = rng.uniform(-0.25, 0.25, 2)
    gain = 1 + slope_x * np.linspace(-1, 1, width)[None, :] + slope_y * np.linspace(-1, 1, height)[:, None]
    curve = (np.linspace(0, 1, 256) ** rng.uniform(0.7, 1.4) - 0.5) * rng.uniform(0.75, 1.1) + 0.5
    values = (curve * 255).astype(np.float32)[np.asarray(image)]
    values *= (gain[..., None] * rng.uniform(0.88, 1.12, 3)).astype(np.float32)
    values += np.float32(rng.uniform(1, 8)) * fresh.standard_normal(values.shape[:2], dtype=np.float32)[..., None]
    return values.clip(0, 255).astype(np.uint8)
