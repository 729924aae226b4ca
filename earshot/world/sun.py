"""A small benchmark in the layout of SUN397: a folder of images for each scene category, and the partition files."""

from collections.abc import Iterable
from pathlib import Path

from earshot.core.files import write_atomically
from earshot.world.media import write_image
from earshot.world.scenes import render_image
from earshot.world.sources import KINDS, generator

SPLITS = 3
CATEGORIES = tuple(f"/{kind[0]}/{kind}" for kind in sorted(KINDS))  # such as /a/abbey
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def images_per_category(images: int) -> int:
    """A fifth more than one partition uses for training and testing, so that the partitions differ."""
    return 2 * images + images // 5


def image_name(number: int) -> str:
    """A name of sixteen letters as in SUN397, `sun_aaaaaaaaaaaaaabc.jpg`."""
    letters = "".join(LETTERS[number // 26**place % 26] for place in reversed(range(16)))
    return f"sun_{letters}.jpg"


def render_sun(folder: Path, seed: int, numbers: Iterable[int], *, image_size: int) -> None:
    """Render the images with these numbers, which cycle through the categories."""
    for number in numbers:
        which, category = divmod(number, len(CATEGORIES))
        kind = CATEGORIES[category].rsplit("/", 1)[1]
        image, *_ = render_image(seed, "sun", number, image_size=image_size, kinds=(kind,))
        write_image(folder / "SUN397" / CATEGORIES[category][1:] / image_name(which), image)


def write_partitions(folder: Path, seed: int, images: int) -> None:
    """Write ClassName.txt, and for each split Training_0n.txt and Testing_0n.txt with `images` images a category.

    As in the official archives, ClassName.txt lies beside the images and beside the partitions.
    """
    for part in ("SUN397", "Partitions"):
        _write_lines(folder / part / "ClassName.txt", CATEGORIES)
    for split in range(1, SPLITS + 1):
        training, testing = [], []
        for number, category in enumerate(CATEGORIES):
            drawn = generator(seed, "sun partition", split, number).permutation(images_per_category(images))
            names = [f"{category}/{image_name(which)}" for which in drawn[: 2 * images].tolist()]
            training += sorted(names[:images])
            testing += sorted(names[images:])
        _write_lines(folder / "Partitions" / f"Training_{split:02d}.txt", training)
        _write_lines(folder / "Partitions" / f"Testing_{split:02d}.txt", testing)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
