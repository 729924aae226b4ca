"""Scenes of the sample world: their causes, the layout of the image, and the audible causes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from earshot.world.appearance import draw
from earshot.world.background import backdrop, draw_silent_object, light, place_anywhere
from earshot.world.drawing import Colors, Mask, Pose, Sketch, brightness_at, colors_apart
from earshot.world.recording import record
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS, Cause, draw_cause, generator

SECOND_SOURCE = 0.30  # share of clips with a second source, visible and audible
OFF_SCREEN = 0.25  # share of clips with a source that is only audible
OCCLUDED = 0.45  # share of images with silent objects in front of the sources
CONTRAST = 0.28  # least difference in brightness between a source and its background, darker or lighter
REDRAW_SECONDS = 1.0  # a clip's image is drawn again this often, and repeated in between
FINE = 2  # images are drawn this many times larger, then reduced, which smooths the edges
MASK_CLASSES = {kind: number for number, kind in enumerate(sorted(KINDS), 1)}  # of a mask's px; 0 is the background
VOID = 255  # of a mask's px that an outline divides, as in VOC
WIDE_KINDS = ("surf", "rain", "grass", "crowd", "fire")  # these fill a region; the others are objects


@dataclass(frozen=True)
class Visible:
    """A cause in an image; `drift` in pixels a second."""

    cause: Cause
    pose: Pose
    drift: tuple[float, float]


@dataclass(frozen=True)
class VisibleObject:
    """An annotated object of an image: kind, box (left, top, right, bottom) in pixels, and VOC's two flags."""

    kind: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class RenderedClip:
    """A rendered clip.

    frames are uint8 (n, height, width, 3), the sound is float32 (samples,) at `audio_rate`; annotations are the visible
    or audible kinds.
    """

    frames: np.ndarray
    frame_rate: float
    sound: np.ndarray
    audio_rate: int
    annotations: tuple[str, ...]


def sides(short: int, ratio: float) -> tuple[int, int]:
    """Width and height, both even (H.264 stores color at half resolution), of an image with that short side."""
    short += short % 2
    long = 2 * round(short * max(ratio, 1 / ratio) / 2)
    return (long, short) if ratio >= 1 else (short, long)


def stand(rng: np.random.Generator, causes: Sequence[Cause | None], width: int, height: int) -> list[Visible]:
    """Place causes beside each other along the long side, larger if there are fewer; the rest is random.

    None leaves a place empty.
    """
    short, slots = min(width, height), len(causes)
    visible = []
    for slot, cause in enumerate(causes):
        if cause is None:
            continue
        along, across = (slot + rng.uniform(0.3, 0.7)) / slots, rng.uniform(0.33, 0.67)
        x, y = (along * width, across * height) if width >= height else (across * width, along * height)
        scale = short * rng.uniform(0.24, 0.46) * (1.0, 0.85, 0.68)[min(slots, 3) - 1]
        stretch = rng.uniform(0.75, 1.2) * (1.15 if cause.kind in WIDE_KINDS else 1.0)
        pose = Pose(x, y, scale, stretch, rng.uniform(-0.25, 0.25), bool(rng.random() < 0.5))
        visible.append(Visible(cause, pose, tuple(rng.uniform(-0.012, 0.012, 2) * short)))
    return visible


def occlusion(box: np.ndarray, others: list[np.ndarray]) -> float:
    """The largest share of a box that any one of the others covers."""
    area = np.prod(np.maximum(box[2:] - box[:2], 1e-6))
    overlaps = [
        np.prod(np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0)) for other in others
    ]
    return max(overlaps, default=0.0) / area


def visible_object(
    kind: str, box: np.ndarray, covering: list[np.ndarray], width: int, height: int
) -> VisibleObject | None:
    """The annotation of a drawn object from its box in pixels; None if it is outside the image.

    As in VOC, an object is difficult if little of it is visible: more than half of its box is outside or covered, or it
    is very small.
    """
    inside = np.array([*np.clip(box[:2], 0, [width, height]), *np.clip(box[2:], 0, [width, height])])
    if np.any(inside[2:] - inside[:2] < 3):
        return None
    visible = np.prod(inside[2:] - inside[:2]) / np.prod(box[2:] - box[:2])
    tiny = np.prod(inside[2:] - inside[:2]) < 0.02 * width * height
    difficult = tiny or visible < 0.5 or occlusion(inside, covering) > 0.5
    left, top, right, bottom = (int(round(v)) for v in inside)
    return VisibleObject(kind, (left, top, right, bottom), bool(visible < 0.98), bool(difficult))


def reduced(mask: np.ndarray) -> np.ndarray:
    """A mask made FINE times smaller: the class of px that have one, and VOID for those that an outline divides."""
    layers = [mask[row::FINE, column::FINE] for row in range(FINE) for column in range(FINE)]
    lowest = np.minimum.reduce(layers)
    return np.where(lowest == np.maximum.reduce(layers), lowest, np.uint8(VOID))


class RenderedScene:
    """The contents of an image: backdrop and silent objects, drawn once; sources and occluders, drawn at any time."""

    def __init__(self, seed: int, purpose: str, number: int, causes: Sequence[Cause | None], size: tuple[int, int]):
        self.key = (seed, purpose, number)
        self.width, self.height = size
        rng = self._generator("view")
        fine = self.width * FINE, self.height * FINE
        self.image = backdrop(rng, *fine)
        for _ in range(int(rng.integers(3, 9))):
            draw_silent_object(self.image, rng, place_anywhere(rng, *fine, 0.08, 0.3), 0.1)
        self.visible = stand(rng, causes, *fine)
        self.colors = [self._colors(rng, each.pose) for each in self.visible]
        self.occluders = [self._occluder(rng) for _ in range(int(rng.random() < OCCLUDED) * len(self.visible))]

    def _colors(self, rng: np.random.Generator, pose: Pose) -> Colors:
        return colors_apart(rng, brightness_at(self.image, pose), CONTRAST)

    def _occluder(self, rng: np.random.Generator) -> Pose:
        hidden = self.visible[rng.integers(len(self.visible))].pose
        x, y = np.array([hidden.x, hidden.y]) + hidden.scale * rng.uniform(-1.1, 1.1, 2)
        return Pose(x, y, hidden.scale * rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.3), rng.uniform(-0.4, 0.4))

    def at(self, time: float) -> tuple[np.ndarray, list[VisibleObject]]:
        """The image at a time in seconds, uint8 (height, width, 3), and the objects in it."""
        image, objects, _ = self.with_mask_at(time)
        return image, objects

    def with_mask_at(self, time: float) -> tuple[np.ndarray, list[VisibleObject], np.ndarray]:
        """As `at`, and the class of each px, uint8 (height, width): 0, a number of MASK_CLASSES, or VOID."""
        image, mask = self.image.copy(), Image.new("L", self.image.size)
        pairs = zip(self.visible, self.colors, strict=True)
        boxes = [self._draw(image, mask, each, colors, time) for each, colors in pairs]
        rng = self._generator("front")
        front = [np.array(draw_silent_object(image, rng, pose, 0.15, Mask(mask, 0))) / FINE for pose in self.occluders]
        objects = []
        for number, each in enumerate(self.visible):
            later = zip(boxes[number + 1 :], self.visible[number + 1 :], strict=True)
            covering = front + [box for box, other in later if other.cause.kind != "rain"]  # rain is transparent
            objects.append(visible_object(each.cause.kind, boxes[number], covering, self.width, self.height))
        grain = self._generator("grain", int(time * 1000))
        lit = light(self._generator("light"), image.reduce(FINE), grain)
        return lit, [each for each in objects if each], reduced(np.asarray(mask))

    def _generator(self, layer: str, *numbers: int) -> np.random.Generator:
        seed, purpose, number = self.key
        return generator(seed, f"{purpose} {layer}", number, *numbers)

    def _draw(self, image: Image.Image, mask: Image.Image, each: Visible, colors: Colors, time: float) -> np.ndarray:
        (x, y), (right, down) = (each.pose.x, each.pose.y), each.drift
        pose = replace(each.pose, x=x + right * time, y=y + down * time)
        pen = Sketch(image, pose, colors, Mask(mask, MASK_CLASSES[each.cause.kind]))
        draw(pen, each.cause, time)
        return np.array(pen.box()) / FINE


def different_kinds(rng: np.random.Generator, first: str, count: int) -> list[Cause]:
    """Causes of `count` different kinds; the first kind is given."""
    others = rng.permutation([kind for kind in KINDS if kind != first])[: count - 1]
    return [draw_cause(rng, kind) for kind in (first, *others.tolist())]


@dataclass(frozen=True)
class ClipPlan:
    """The contents of a clip: visible and audible causes, the main one first, and causes that are only audible."""

    visible: list[Cause]
    off_screen: list[Cause]

    @property
    def annotations(self) -> tuple[str, ...]:
        """The visible or audible kinds."""
        return tuple(cause.kind for cause in self.visible + self.off_screen)


def plan_clip(seed: int, clip_number: int) -> ClipPlan:
    """Draw the contents of a clip at random. The main kind cycles through KINDS with the clip's number."""
    rng = generator(seed, "corpus", clip_number)
    causes = different_kinds(rng, KINDS[clip_number % len(KINDS)], 3)
    visible = 2 if rng.random() < SECOND_SOURCE else 1
    audio_only = 1 if rng.random() < OFF_SCREEN else 0
    return ClipPlan(causes[:visible], causes[visible : visible + audio_only])


def render_clip(seed: int, clip_number: int, *, image_size: int, seconds: float, frame_rate: float) -> RenderedClip:
    """Render one clip of the corpus, which depends only on the seed and the number.

    image_size is the short side in pixels.
    """
    plan = plan_clip(seed, clip_number)
    scene = RenderedScene(seed, "corpus", clip_number, plan.visible, sides(image_size, 4 / 3))
    images = [scene.at(time)[0] for time in np.arange(0, seconds, REDRAW_SECONDS)]
    times = np.arange(round(seconds * frame_rate)) / frame_rate
    frames = np.stack([images[int(time / REDRAW_SECONDS)] for time in times])
    rng = generator(seed, "corpus sound", clip_number)
    audible = [(plan.visible[0], 0.0), *((cause, rng.uniform(-8, 0)) for cause in plan.visible[1:]),
               *((cause, rng.uniform(-14, -5)) for cause in plan.off_screen)]  # fmt: skip
    sound = record(rng, audible, round(seconds * RATE))
    return RenderedClip(frames, frame_rate, sound, RATE, plan.annotations)


def render_image(
    seed: int, purpose: str, number: int, *, image_size: int, kinds: tuple[str, ...]
) -> tuple[np.ndarray, list[VisibleObject], np.ndarray]:
    """Render one annotated image with a cause of each given kind.

    Returns the image, uint8 (height, width, 3), its objects, and its mask as `RenderedScene.with_mask_at` returns it.
    `purpose` names the dataset of the image: images of different datasets share no instance.
    """
    rng = generator(seed, purpose, number)
    causes = [draw_cause(rng, kind) for kind in kinds]
    ratio = float(rng.choice([4 / 3, 4 / 3, 1.0, 3 / 4]))
    return RenderedScene(seed, purpose, number, causes, sides(image_size, ratio)).with_mask_at(float(rng.uniform(0, 8)))


def render_sound(seed: int, kind: str, *, source: int, take: int, seconds: float) -> np.ndarray:
    """Render one recording of a single source: float32 (samples,) at RATE.

    Takes of a source share only its cause.
    """
    cause = draw_cause(generator(seed, "esc50", KINDS.index(kind), source), kind)
    rng = generator(seed, "esc50 take", KINDS.index(kind), source, take)
    return record(rng, [(cause, 0.0)], round(seconds * RATE))
