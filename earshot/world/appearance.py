"""The appearance of the ten kinds of the sample world: each function draws shape and texture in any colors.

Each takes a pen; a generator seeded by the cause's instance, so that an object keeps its shape from frame to frame; the
cause; and the time in seconds, which moves it.
"""

import numpy as np

from earshot.world.drawing import Sketch, oval, rectangle
from earshot.world.sources import Cause


def surf(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Rows of scalloped crests with foam, higher with more force; nearer rows are wider."""
    rows = int(rng.integers(5, 8))
    x = np.linspace(-1.5, 1.5, 60)
    edge = 0.06 * np.sin(np.linspace(0, np.pi, len(x)) * rng.uniform(2, 5))
    for row in range(rows):
        near = row / (rows - 1)
        top = -0.75 + 1.5 * near**1.3
        height = (0.1 + 0.16 * cause.force) * (0.6 + 0.8 * near)
        waves = rng.uniform(2.0, 3.2) * (1.5 - 0.7 * near)
        phase = rng.uniform(0, np.pi) + time * (0.3 + 0.7 * cause.pace)
        crest = top - height * (1 - np.abs(np.sin(waves * x + phase))) + edge
        foam = height * (0.35 + 0.3 * cause.force)
        outline = np.stack([np.r_[x, x[::-1]], np.r_[crest, np.full(len(x), 0.95)]], axis=-1)
        pen.polygon(outline, pen.detail)
        outline[: len(x), 1] += foam
        pen.polygon(outline, pen.body)


def rain(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Parallel slanting streaks, denser with force and longer with pace, and rings where they land."""
    streaks = int(70 + 110 * cause.force)
    slant = rng.uniform(-0.45, 0.45)
    length = (0.18 + 0.2 * cause.pace) * rng.uniform(0.7, 1.2, streaks)
    start = rng.uniform([-1.4, -1.0], [1.4, 0.75], (streaks, 2))
    start[:, 1] = (start[:, 1] + 1.0 + 1.7 * time) % 1.75 - 1.0
    end = start + length[:, None] * np.array([slant, 1.0])
    pen.lines(np.stack([start, end], axis=1), pen.body, 0.022 + 0.012 * cause.size)
    for x, y in rng.uniform([-1.3, 0.7], [1.3, 1.0], (int(rng.integers(4, 9)), 2)):
        ring = oval(x, y, 0.14, 0.05)
        pen.lines(np.concatenate([ring, ring[:1]])[None], pen.body, 0.02)


def fire(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Pointed tongues, one inside the other, taller with force, over crossed logs."""
    tongues = int(rng.integers(6, 10))
    reach = 0.75 + 0.5 * cause.force
    up = np.linspace(0, 1, 12)
    breadth = np.sin(np.pi * np.minimum(up * 0.9 + 0.25, 1.0)) * (1 - up**3)
    for layer, fill in ((1.0, pen.body), (0.55, pen.detail)):
        shape = np.random.default_rng(cause.instance + 1)
        for middle in shape.permutation(np.linspace(-0.75, 0.75, tongues)):
            height = layer * reach * shape.uniform(0.7, 1.3) * (1.25 - 0.6 * abs(middle))
            sway = 0.16 * np.sin(5 * up + shape.uniform(0, 6.3) + 6 * time) * up
            wide = 0.24 * layer**0.5 * shape.uniform(0.7, 1.2)
            left, right = middle + sway - wide * breadth, middle + sway + wide * breadth
            y = 0.72 - 1.15 * height * up
            pen.polygon(np.stack([np.r_[left, right[::-1]], np.r_[y, y[::-1]]], axis=-1), fill)
    for lean in (-0.16, 0.16):
        pen.polygon([[-1, 0.78 - lean], [1, 0.78 + lean], [1, 0.92 + lean], [-1, 0.92 - lean]], pen.edge)


def grass(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """A stand of thin curved blades, all leaning with the wind, further with its force."""
    blades = int(rng.integers(70, 110))
    root = np.sort(rng.uniform(-1.35, 1.35, blades))
    tall = rng.uniform(0.9, 1.75, blades)
    gust = 0.15 + 0.55 * cause.force + 0.12 * np.sin(2.2 * root + (2 + 3 * cause.pace) * time)
    lean = gust + rng.normal(0, 0.16, blades)
    wide = rng.uniform(0.035, 0.07, blades)
    up = np.array([0.0, 0.35, 0.7, 1.0])
    middle = root[:, None] + (lean * tall)[:, None] * up**2  # (blades, 4)
    y = 0.95 - tall[:, None] * (up - 0.18 * np.abs(lean)[:, None] * up**2)
    half = wide[:, None] * (1 - 0.95 * up)
    outlines = np.stack(
        [np.concatenate([middle - half, (middle + half)[:, ::-1]], 1), np.concatenate([y, y[:, ::-1]], 1)], -1
    )
    order = rng.permutation(blades)
    pen.polygons(outlines[order], [(pen.body, pen.body, pen.detail)[i % 3] for i in range(blades)])


def car(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """A vehicle from the side: from a low car (small) to a tall van (large), with windows and two or three wheels."""
    tall = 0.3 + 0.35 * cause.size
    belt, floor = 0.05 - 0.25 * cause.size, 0.48
    nose, tail = rng.uniform(0.5, 0.75) + 0.1 * cause.size, rng.uniform(0.55, 0.95)
    slope = rng.uniform(0.12, 0.3) * (1.1 - cause.size)
    bounce = 0.015 * np.sin(17 * time)
    roof, belt = belt - tall + bounce, belt + bounce
    pen.polygon(
        [[-1.25, belt + 0.12], [-1.2, belt], [1.15, belt + 0.05], [1.28, belt + 0.25], [1.28, floor], [-1.28, floor]],
        pen.body,
    )
    pen.polygon([[-tail - slope, belt], [-tail + 0.05, roof], [nose - slope, roof], [nose + slope, belt]], pen.body)
    panes = int(rng.integers(2, 4))
    edges = np.linspace(-tail + 0.08, nose - slope * 0.4, panes + 1)
    for left, right in zip(edges[:-1], edges[1:], strict=True):
        pen.polygon(rectangle(left + 0.04, roof + 0.08, right - 0.04, belt - 0.02), pen.detail)
    wheel = rng.uniform(0.24, 0.32)
    spots = (-0.75, 0.72) if cause.size < 0.7 else (-0.85, -0.25, 0.75)
    for x in spots:
        pen.ellipse(x, floor + 0.04, wheel, wheel, pen.edge)
        pen.ellipse(x, floor + 0.04, wheel * 0.5, wheel * 0.5, pen.body)
        spoke = 0.85 * wheel * np.array([np.cos(9 * time), np.sin(9 * time)])
        pen.lines(np.array([[[x, floor + 0.04] - spoke, [x, floor + 0.04] + spoke]]), pen.body, 0.05)


def bird(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Body, round head, beak, wing, tail and thin legs; stouter when large, singing with an open beak."""
    stout = 0.36 + 0.14 * cause.size + rng.uniform(-0.03, 0.03)
    tilt = rng.uniform(-0.5, -0.15) + 0.05 * np.sin(3 * time)
    length = rng.uniform(0.35, 0.6)
    end = 0.2 - length * tilt
    pen.polygon([[-0.4, 0.0], [-0.6 - length, end], [-0.55 - length, end + 0.22], [-0.3, 0.25]], pen.detail)
    pen.lines(np.array([[[-0.05, 0.3], [-0.1, 0.95]], [[0.15, 0.3], [0.15, 0.95]]]), pen.edge, 0.06)
    pen.ellipse(0.0, 0.05, 0.68, stout, pen.body, tilt)
    head = rng.uniform(0.26, 0.34)
    x, y = 0.55, -0.32 - 0.1 * cause.size
    pen.ellipse(x, y, head, head, pen.body)
    gape = 0.07 + 0.1 * cause.pace * abs(np.sin(4 * time))
    beak = rng.uniform(0.25, 0.45)
    for side in (-1, 1):
        pen.polygon(
            np.array([[x + 0.7 * head, y], [x + 0.7 * head, y + side * 0.13], [x + head + beak, y + side * gape]]),
            pen.edge,
        )
    pen.ellipse(x + 0.1, y - 0.07, 0.07, 0.07, pen.edge)
    pen.ellipse(-0.12, 0.02, 0.45, 0.55 * stout, pen.detail, tilt - 0.15)


def crowd(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Rows of heads over shoulders, more and smaller people with force."""
    rows = 2 + round(2 * cause.force)
    head = 0.34 / rows**0.6
    for row in range(rows):
        y = -0.55 + 1.3 * row / rows
        people = int(np.ceil(1.25 / head))
        for x in np.linspace(-1.3, 1.3, people) + rng.uniform(-0.25, 0.25, people) * head + head * (row % 2):
            dy = y + rng.uniform(-0.3, 0.3) * head + 0.1 * head * np.sin(5 * time + 9 * x)
            shirt, skin = (pen.body, pen.detail) if rng.random() < 0.6 else (pen.edge, pen.body)
            shoulders = (
                np.array([[-1.05, 3.4], [-1.0, 1.6], [-0.5, 1.05], [0.5, 1.05], [1.0, 1.6], [1.05, 3.4]]) * head * 1.05
            )
            pen.polygon(shoulders + [x, dy], shirt)
            pen.ellipse(x, dy + 0.15 * head, 0.62 * head, 0.85 * head, skin)


def bell(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """A flared bell on a beam, swinging further with force, its clapper below the rim."""
    waist, shoulder, lip = rng.uniform(0.42, 0.56), rng.uniform(0.3, 0.42), rng.uniform(0.8, 0.95)
    down = np.array([-0.7, -0.66, -0.5, -0.1, 0.25, 0.5, 0.62])
    half = np.array([0.1, shoulder * 0.8, shoulder, waist, waist + 0.12, lip - 0.06, lip])
    angle = (0.08 + 0.3 * cause.force) * np.sin((2 + 3 * cause.pace) * time + rng.uniform(0, 6.3))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    pivot = np.array([0.0, -0.85])
    pen.polygon(rectangle(-0.75, -1.0, 0.75, -0.85), pen.edge)

    def swing(points: np.ndarray) -> np.ndarray:
        return (points - pivot) @ turn + pivot

    pen.polygon(swing(oval(0.12 * np.sign(angle), 0.68, 0.17, 0.2)), pen.edge)
    pen.polygon(swing(rectangle(-0.12, -0.9, 0.12, -0.6)), pen.edge)
    pen.polygon(swing(np.stack([np.r_[-half, half[::-1]], np.r_[down, down[::-1]]], -1)), pen.body)
    for low, high in ((0.38, 0.47), (-0.42, -0.36)):
        wide = np.interp([low, high], down, half)
        band = np.array([[-wide[0], low], [wide[0], low], [wide[1], high], [-wide[1], high]])
        pen.polygon(swing(band), pen.detail)


def gears(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Two or three toothed wheels in mesh; the more teeth, the quicker they click."""
    teeth = int(8 + 6 * cause.pace)
    tooth = 2 * np.pi / teeth
    wheels = [(-0.38, 0.12, 0.62)]
    toward = rng.uniform(-0.9, 0.3)
    small = rng.uniform(0.34, 0.46)
    reach = 0.62 + small - 0.03
    wheels.append((-0.38 + reach * np.cos(toward), 0.12 + reach * np.sin(toward), small))
    if rng.random() < 0.5:
        wheels.append((-0.38 + 0.9 * np.cos(toward - 1.6), 0.12 + 0.9 * np.sin(toward - 1.6), 0.3))
    for number, (x, y, radius) in enumerate(wheels):
        own = max(7, round(teeth * radius / 0.62))
        tooth = 2 * np.pi / own
        start = np.arange(own)[:, None] * tooth + (1 + 2 * cause.pace) * time * (-1) ** number / radius
        angles = (start + tooth * np.array([0, 0.12, 0.45, 0.57])).ravel()
        radii = np.tile(radius * np.array([0.8, 1.06, 1.06, 0.8]), own)
        pen.polygon(
            np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], -1), (pen.body, pen.detail)[number % 2]
        )
        inner = (pen.detail, pen.body)[number % 2]
        pen.ellipse(x, y, radius * 0.42, radius * 0.42, inner)
        pen.ellipse(x, y, radius * 0.15, radius * 0.15, pen.edge)


def rotor(pen: Sketch, rng: np.random.Generator, cause: Cause, time: float) -> None:
    """Long blades around a hub on a tapering mast; more blades beat faster."""
    blades = 3 + round(3 * cause.pace)
    pen.polygon([[-0.06, -0.15], [0.06, -0.15], [0.16, 1.05], [-0.16, 1.05]], pen.detail)
    along = np.array([0.06, 0.3, 0.9, 1.0, 0.9, 0.3, 0.06])
    wide = np.array([-0.03, -0.1, -0.075, 0.0, 0.1, 0.17, 0.03]) * rng.uniform(0.9, 1.5)
    turn = rng.uniform(0, 6.3) + (1 + 3 * cause.force) * time
    for angle in turn + np.arange(blades) * 2 * np.pi / blades:
        x, y = np.cos(angle) * along - np.sin(angle) * wide, np.sin(angle) * along + np.cos(angle) * wide
        pen.polygon(np.stack([x, y - 0.15], -1), pen.body)
    pen.ellipse(0, -0.15, 0.14, 0.14, pen.edge)


APPEARANCES = {kind.__name__: kind for kind in (surf, rain, fire, grass, car, bird, crowd, bell, gears, rotor)}


def draw(pen: Sketch, cause: Cause, time: float) -> None:
    """Draw a cause at a time in seconds."""
    APPEARANCES[cause.kind](pen, np.random.default_rng(cause.instance), cause, time)
