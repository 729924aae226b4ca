"""Scenes of the sample world: which causes there are, how they stand in the picture, and what of them is heard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from earshot.world.appearance import draw
from earshot.world.background import backdrop, draw_silent_thing, light, place_anywhere
from earshot.world.drawing import Colors, Place, Sketch, brightness_at, colors_apart
from earshot.world.recording import record
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS, Cause, draw_cause, generator

SECOND_SOURCE = 0.30  # share of clips with a second source, seen and heard
OFF_SCREEN = 0.25  # share of clips with a source that is heard only
OCCLUDED = 0.45  # share of pictures with something silent in front of the sources
CONTRAST = 0.28  # least difference in brightness between a source and its background, darker or lighter
HELD_SECONDS = 1.0  # a clip's picture is drawn afresh this often, and held between
FINE = 2  # pictures are drawn this many times larger, then reduced, which smooths the edges
WIDE_KINDS = ("surf", "rain", "grass", "crowd", "fire")  # these fill a region; the others are things


@dataclass(frozen=True)
class Visible:
    """A cause as it stands in a picture; `drift` in pixels a second."""

    cause: Cause
    place: Place
    drift: tuple[float, float]


@dataclass(frozen=True)
class VisibleObject:
    """An annotated object of a picture: kind, box (left, top, right, bottom) in pixels, and VOC's two flags."""

    kind: str
    box: tuple[int, int, int, int]
    truncated: bool
    difficult: bool


@dataclass(frozen=True)
class Clip:
    """A rendered clip.

    frames are uint8 (n, height, width, 3), the sound float32 (samples,) at `sound_rate`; annotations are the kinds seen
    or heard.
    """

    frames: np.ndarray
    frame_rate: float
    sound: np.ndarray
    audio_rate: int
    annotations: tuple[str, ...]


def sides(short: int, ratio: float) -> tuple[int, int]:
    """Width and height, both even (H.264 stores colour at half resolution), of a picture with that short side."""
    short += short % 2
    long = 2 * round(short * max(ratio, 1 / ratio) / 2)
    return (long, short) if ratio >= 1 else (short, long)


def stand(rng: np.random.Generator, causes: Sequence[Cause | None], width: int, height: int) -> list[Visible]:
    """Places for causes beside each other along the long side, the larger the fewer there are; the rest at random.

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
        place = Place(x, y, scale, stretch, rng.uniform(-0.25, 0.25), bool(rng.random() < 0.5))
        visible.append(Visible(cause, place, tuple(rng.uniform(-0.012, 0.012, 2) * short)))
    return visible


def occlusion(box: np.ndarray, others: list[np.ndarray]) -> float:
    """The largest share of a box that one of the others covers."""
    area = np.prod(np.maximum(box[2:] - box[:2], 1e-6))
    overlaps = [
        np.prod(np.maximum(np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2]), 0)) for other in others
    ]
    return max(overlaps, default=0.0) / area


def visible_object(
    kind: str, box: np.ndarray, covering: list[np.ndarray], width: int, height: int
) -> VisibleObject | None:
    """The annotation of a drawn object from its box in pixels; None where nothing of it is in the picture.

    As in VOC, an object is difficult when little of it can be seen: more than half of its box is outside or covered, or
    it is very small.
    """
    inside = np.array([*np.clip(box[:2], 0, [width, height]), *np.clip(box[2:], 0, [width, height])])
    if np.any(inside[2:] - inside[:2] < 3):
        return None
    shown = np.prod(inside[2:] - inside[:2]) / np.prod(box[2:] - box[:2])
    tiny = np.prod(inside[2:] - inside[:2]) < 0.02 * width * height
    difficult = tiny or shown < 0.5 or occlusion(inside, covering) > 0.5
    left, top, right, bottom = (int(round(v)) for v in inside)
    return VisibleObject(kind, (left, top, right, bottom), bool(shown < 0.98), bool(difficult))


class View:
    """One picture's world: backdrop and silent things drawn once, the sources and what is before them at any time."""

    def __init__(self, seed: int, purpose: str, number: int, causes: Sequence[Cause | None], size: tuple[int, int]):
        self.key = (seed, purpose, number)
        self.width, self.height = size
        rng = self._generator("view")
        fine = self.width * FINE, self.height * FINE
        self.image = backdrop(rng, *fine)
        for _ in range(int(rng.integers(3, 9))):
            draw_silent_thing(self.image, rng, place_anywhere(rng, *fine, 0.08, 0.3), 0.1)
        self.visible = stand(rng, causes, *fine)
        self.colors = [self._colors(rng, each.place) for each in self.visible]
        self.occluders = [self._occluder(rng) for _ in range(int(rng.random() < OCCLUDED) * len(self.visible))]

    def _colors(self, rng: np.random.Generator, place: Place) -> Colors:
        return colors_apart(rng, brightness_at(self.image, place), CONTRAST)

    def _occluder(self, rng: np.random.Generator) -> Place:
        hidden = self.visible[rng.integers(len(self.visible))].place
        x, y = np.array([hidden.x, hidden.y]) + hidden.scale * rng.uniform(-1.1, 1.1, 2)
        return Place(x, y, hidden.scale * rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.3), rng.uniform(-0.4, 0.4))

    def at(self, time: float) -> tuple[np.ndarray, list[VisibleObject]]:
        """The picture at a time in seconds, uint8 (height, width, 3), and the objects in it."""
        image = self.image.copy()
        pairs = zip(self.visible, self.colors, strict=True)
        boxes = [self._draw(image, each, colors, time) for each, colors in pairs]
        rng = self._generator("front")
        front = [np.array(draw_silent_thing(image, rng, place, 0.15)) / FINE for place in self.occluders]
        objects = []
        for number, each in enumerate(self.visible):
            later = zip(boxes[number + 1 :], self.visible[number + 1 :], strict=True)
            covering = front + [box for box, other in later if other.cause.kind != "rain"]  # one sees through rain
            objects.append(visible_object(each.cause.kind, boxes[number], covering, self.width, self.height))
        grain = self._generator("grain", int(time * 1000))
        return light(self._generator("light"), image.reduce(FINE), grain), [seen for seen in objects if seen]

    def _generator(self, layer: str, *numbers: int) -> np.random.Generator:
        seed, purpose, number = self.key
        return generator(seed, f"{purpose} {layer}", number, *numbers)

    def _draw(self, image: Image.Image, each: Visible, colors: Colors, time: float) -> np.ndarray:
        (x, y), (right, down) = (each.place.x, each.place.y), each.drift
        place = replace(each.place, x=x + right * time, y=y + down * time)
        pen = Sketch(image, place, colors)
        draw(pen, each.cause, time)
        return np.array(pen.box()) / FINE


def different_kinds(rng: np.random.Generator, first: str, count: int) -> list[Cause]:
    """Causes of `count` different kinds, the first of them given."""
    others = rng.permutation([kind for kind in KINDS if kind != first])[: count - 1]
    return [draw_cause(rng, kind) for kind in (first, *others.tolist())]


@dataclass(frozen=True)
class ClipPlan:
    """What is in a clip before it is rendered: causes seen and heard, the main one first, and those heard only."""

    seen: list[Cause]
    off_screen: list[Cause]

    @property
    def annotations(self) -> tuple[str, ...]:
        """The kinds seen or heard."""
        return tuple(cause.kind for cause in self.seen + self.off_screen)


def plan_clip(seed: int, clip_number: int) -> ClipPlan:
    """Draws what is in a clip. The main kind takes turns through KINDS with the clip's number."""
    rng = generator(seed, "corpus", clip_number)
    causes = different_kinds(rng, KINDS[clip_number % len(KINDS)], 3)
    seen = 2 if rng.random() < SECOND_SOURCE else 1
    audio_only = 1 if rng.random() < OFF_SCREEN else 0
    return ClipPlan(causes[:seen], causes[seen : seen + audio_only])


def render_clip(seed: int, clip_number: int, *, image_size: int, seconds: float, frame_rate: float) -> Clip:
    """Renders one clip of the corpus: everything in it is a function of the seed and the number.

    picture_size is the short side in pixels.
    """
    plan = plan_clip(seed, clip_number)
    view = View(seed, "corpus", clip_number, plan.seen, sides(image_size, 4 / 3))
    held = [view.at(time)[0] for time in np.arange(0, seconds, HELD_SECONDS)]
    times = np.arange(round(seconds * frame_rate)) / frame_rate
    frames = np.stack([held[int(time / HELD_SECONDS)] for time in times])
    rng = generator(seed, "corpus sound", clip_number)
    heard = [(plan.seen[0], 0.0), *((cause, rng.uniform(-8, 0)) for cause in plan.seen[1:]),
             *((cause, rng.uniform(-14, -5)) for cause in plan.off_screen)]  # fmt: skip
    sound = record(rng, heard, round(seconds * RATE))
    return Clip(frames, frame_rate, sound, RATE, plan.annotations)


def render_image(
    seed: int, purpose: str, number: int, *, image_size: int, kinds: tuple[str, ...]
) -> tuple[np.ndarray, list[VisibleObject]]:
    """Renders one annotated picture with a cause of each kind given: uint8 (height, width, 3) and its objects.

    `purpose` names the tree that the picture is for: pictures of different trees share no instance.
    """
    rng = generator(seed, purpose, number)
    causes = [draw_cause(rng, kind) for kind in kinds]
    ratio = float(rng.choice([4 / 3, 4 / 3, 1.0, 3 / 4]))
    return View(seed, purpose, number, causes, sides(image_size, ratio)).at(float(rng.uniform(0, 8)))


def render_sound(seed: int, kind: str, *, source: int, take: int, seconds: float) -> np.ndarray:
    """Renders one recording of a single source: float32 (samples,) at RATE.

    Takes of a source share its instance and nothing else.
    """
    cause = draw_cause(generator(seed, "esc50", KINDS.index(kind), source), kind)
    rng = generator(seed, "esc50 take", KINDS.index(kind), source, take)
    return record(rng, [(cause, 0.0)], round(seconds * RATE))
