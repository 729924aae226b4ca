"""A small benchmark in the layout of VGG-SS: images with their sound, and the box of the audible source in each.

`vggss.json` lists file, class and boxes, as fractions of the image's width and height; `frames/<file>.jpg` and
`audio/<file>.wav` are the image and the sound. The audible source stands in one of three places beside each other, two
of them off the middle. In half of the images a silent source of another kind stands in another place.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from earshot.core.files import write_atomically
from earshot.world.media import write_image, write_recording
from earshot.world.recording import record
from earshot.world.scenes import RenderedScene, VisibleObject, different_kinds, sides
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS, Cause, generator

SECONDS = 2.0
SILENT_SOURCE = 0.5  # share of images with a second source that is silent


def image_name(number: int) -> str:
    """The name of an image and its sound, `image_000012`."""
    return f"image_{number:06d}"


def plan_image(seed: int, number: int) -> tuple[Cause, list[Cause | None]]:
    """The audible cause, and the contents of the three places: that cause, perhaps a silent one, and None.

    The kind of the audible cause cycles through KINDS with the number.
    """
    rng = generator(seed, "localization", number)
    audible, silent = different_kinds(rng, KINDS[number % len(KINDS)], 2)
    places = [audible, silent if rng.random() < SILENT_SOURCE else None, None]
    return audible, [places[place] for place in rng.permutation(len(places))]


def render_pair(seed: int, number: int, *, image_size: int) -> tuple[np.ndarray, np.ndarray, VisibleObject]:
    """One image, uint8 (height, width, 3), its sound, float32 (samples,) at RATE, and the audible object."""
    audible, places = plan_image(seed, number)
    rng = generator(seed, "localisation view", number)
    ratio = float(rng.choice([4 / 3, 4 / 3, 3 / 4]))
    image, objects = RenderedScene(seed, "localization", number, places, sides(image_size, ratio)).at(rng.uniform(0, 8))
    sound = record(generator(seed, "localisation sound", number), [(audible, 0.0)], round(SECONDS * RATE))
    return image, sound, next(each for each in objects if each.kind == audible.kind)


def render_localization(folder: Path, seed: int, numbers: Iterable[int], *, image_size: int) -> None:
    """Render the images with these numbers, their sounds, and the entry of each."""
    for number in numbers:
        name = image_name(number)
        image, sound, audible = render_pair(seed, number, image_size=image_size)
        write_image(folder / "frames" / f"{name}.jpg", image)
        write_recording(folder / "audio" / f"{name}.wav", sound, RATE)
        height, width = image.shape[:2]
        box = [edge / side for edge, side in zip(audible.box, (width, height, width, height), strict=True)]
        _write_json(folder / f".{name}.json", {"file": name, "class": audible.kind, "bbox": [box]})


def write_boxes(folder: Path, images: int) -> None:
    """Join the entries of all images, in order, to vggss.json; one that an earlier run wrote is complete."""
    entries = [folder / f".{image_name(number)}.json" for number in range(images)]
    if not (folder / "vggss.json").exists():
        _write_json(folder / "vggss.json", [json.loads(entry.read_text(encoding="utf-8")) for entry in entries])
    for entry in entries:
        entry.unlink(missing_ok=True)


def _write_json(path: Path, value: object) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(value) + "\n", encoding="utf-8")
