"""Object proposals: the regions of an image that a detector classifies.

`selective-search` computes them (Uijlings et al. 2013, OpenCV's fast mode); `files` reads those released with Fast
R-CNN: selective_search_data/voc_2007_trainval.mat and voc_2007_test.mat.

Boxes are edges in px: left, top, right, bottom.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.core.rng import generator
from earshot.evaluation.image_files import read_whole_image
from earshot.evaluation.images.released_proposals import read_released
from earshot.pipeline.shards import map_shards

SHARD_IMAGES = 50  # of one task
# Larger images are scaled down to this side in px, VOC's, for which the segmentation is tuned. Time grows as its
# square.
LONGEST_SEARCHED = 500


@dataclass(frozen=True)
class Proposals:
    """The proposals of each image, in shards on disk.

    Args:
        folder: of the shards, with one tensor per image.
        shards: the shard number of each image, by the image's name without suffix.
        kept: the number of first proposals to keep per image.
    """

    folder: Path
    shards: Mapping[str, int]
    kept: int

    def of(self, name: str, width: int, height: int) -> np.ndarray:
        """The proposals for an image of that size: float32 (proposals, 4), inside it, unique and not empty."""
        path = self.folder / f"{shard_name(self.shards[name])}.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                boxes = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise EarshotError(f"{path}: cannot be read ({error}); remove the folder {self.folder}") from None
        return clean_boxes(boxes, width, height)[: self.kept]


def clean_boxes(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (n, 4) clipped to an image, without duplicates and boxes smaller than a pixel: float32 (m, 4), in order."""
    clipped = boxes.astype(np.float32).clip(0, np.array([width, height] * 2, np.float32))
    clipped = clipped[((clipped[:, 2:] - clipped[:, :2]) >= 1).all(1)]
    _, first = np.unique(clipped, axis=0, return_index=True)
    return clipped[np.sort(first)]


def search_proposals(files: Sequence[Path], kept: int, scratch: Path) -> Proposals:
    """Proposals by selective search for the images `files`, computed in parallel and stored in `scratch`."""
    folder, numbers = scratch / "proposals", range(-(-len(files) // SHARD_IMAGES))
    work = partial(_search_shard, files=files, folder=folder)
    map_shards(work, numbers, scratch / "finished" / "selective-search", title="selective search")
    return Proposals(folder, {file.stem: index // SHARD_IMAGES for index, file in enumerate(files)}, kept)


def selective_search(image: np.ndarray) -> np.ndarray:
    """The proposals for an image, uint8 (height, width, 3) in blue, green, red: float32 (proposals, 4).

    OpenCV always finds the same regions, but ranks them by a generator that cannot be seeded. Here a fixed random order
    replaces its ranking.
    """
    longest = max(image.shape[:2])
    if longest > LONGEST_SEARCHED:
        factor = LONGEST_SEARCHED / longest
        smaller = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        scale = np.array([old / new for old, new in zip(image.shape[1::-1], smaller.shape[1::-1], strict=True)] * 2)
        return (selective_search(smaller) * scale).astype(np.float32)
    cv2.setNumThreads(1)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(image)
    search.switchToSelectiveSearchFast()
    rects = np.asarray(search.process())  # (proposals, 4): left, top, width, height
    boxes = np.unique(np.column_stack([rects[:, :2], rects[:, :2] + rects[:, 2:]]), axis=0)
    return generator("proposals", len(boxes)).permutation(boxes).astype(np.float32)


def from_files(data_dir: Path, parts: Mapping[str, Sequence[Path]], kept: int, scratch: Path) -> Proposals:
    """The released proposals for the images of the parts `trainval` and `test`.

    Raises EarshotError for a file that is missing, has another layout or lacks an image.
    """
    folder, shards = scratch / "proposals", dict[str, int]()
    for number, (part, files) in enumerate(parts.items()):
        source = data_dir / "selective_search_data" / f"voc_2007_{part}.mat"
        boxes = {name: rows for name, rows in read_released(source) if name}
        missing = [file.stem for file in files if file.stem not in boxes]
        if missing:
            raise EarshotError(f"{source}: has no proposals for image {missing[0]}; restore the file")
        _write_shard(folder, number, {file.stem: boxes[file.stem] for file in files})
        shards |= {file.stem: number for file in files}
    return Proposals(folder, shards, kept)


def _search_shard(number: int, files: Sequence[Path], folder: Path) -> dict[str, int]:
    proposals = {}
    for file in files[number * SHARD_IMAGES : (number + 1) * SHARD_IMAGES]:
        rows = read_whole_image(file).permute(1, 2, 0).numpy()  # (height, width, 3)
        proposals[file.stem] = selective_search(np.ascontiguousarray(rows[..., ::-1]))
    _write_shard(folder, number, proposals)
    return {"images": len(proposals), "proposals": sum(map(len, proposals.values()))}


def _write_shard(folder: Path, number: int, boxes: dict[str, np.ndarray]) -> None:
    with write_atomically(folder / f"{shard_name(number)}.safetensors") as temporary_path:
        temporary_path.write_bytes(save(boxes))
