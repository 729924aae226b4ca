"""Where in a picture objects may be: the regions that a detector looks at.

`selective-search` computes them (Uijlings et al. 2013, fast mode, as OpenCV has it); `files` reads those that were
released with Fast R-CNN: selective_search_data/voc_2007_trainval.mat and voc_2007_test.mat.

Boxes are edges in px, left, top, right, bottom, as those of objects.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name, write_atomically
from earshot.core.rng import generator
from earshot.evaluation.image_files import read_whole_image
from earshot.pipeline.shards import map_shards

SHARD_IMAGES = 50  # searched by one task
# The longest side of a picture that is searched, px: VOC's. Segmentation is set for it, and time grows with the square.
LONGEST_SEARCHED = 500
LAYOUT = "the cell arrays `images` (names) and `boxes` (a row a proposal: ymin, xmin, ymax, xmax from 1), in MATLAB 5"


@dataclass(frozen=True)
class Proposals:
    """The proposals of each picture, in shards on disk.

    Args:
        folder: of the shards, a tensor a picture in each.
        shards: the number of the shard of each picture, by the picture's name without its ending.
        kept: at most so many of a picture, the first ones.
    """

    folder: Path
    shards: Mapping[str, int]
    kept: int

    def of(self, name: str, width: int, height: int) -> np.ndarray:
        """The proposals for a picture of that size: float32 (proposals, 4), inside it, each once and none empty."""
        path = self.folder / f"{shard_name(self.shards[name])}.safetensors"
        try:
            with safe_open(path, framework="np") as file:
                boxes = file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise EarshotError(f"{path}: cannot be read ({error}); remove the folder {self.folder}") from None
        return clean_boxes(boxes, width, height)[: self.kept]


def clean_boxes(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes (n, 4) clipped to a picture, without those below a pixel or seen before: float32 (m, 4), in order."""
    clipped = boxes.astype(np.float32).clip(0, np.array([width, height] * 2, np.float32))
    clipped = clipped[((clipped[:, 2:] - clipped[:, :2]) >= 1).all(1)]
    _, first = np.unique(clipped, axis=0, return_index=True)
    return clipped[np.sort(first)]


def searched(files: Sequence[Path], kept: int, scratch: Path) -> Proposals:
    """Proposals by selective search for the pictures `files`, computed in processes and kept in `scratch`."""
    folder, numbers = scratch / "proposals", range(-(-len(files) // SHARD_IMAGES))
    work = partial(_search_shard, files=files, folder=folder)
    map_shards(work, numbers, scratch / "finished" / "selective-search", title="selective search")
    return Proposals(folder, {file.stem: place // SHARD_IMAGES for place, file in enumerate(files)}, kept)


def selective_search(image: np.ndarray) -> np.ndarray:
    """The proposals for a picture, uint8 (height, width, 3) in blue, green, red: float32 (proposals, 4).

    OpenCV finds the same regions every time but ranks them by a generator that cannot be seeded, so that the first
    hundred are others in every run. Here a draw that is always the same says which come first.
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
    found = np.asarray(search.process())  # (proposals, 4): left, top, width, height
    boxes = np.unique(np.column_stack([found[:, :2], found[:, :2] + found[:, 2:]]), axis=0)
    return generator("proposals", len(boxes)).permutation(boxes).astype(np.float32)


def from_files(data_dir: Path, parts: Mapping[str, Sequence[Path]], kept: int, scratch: Path) -> Proposals:
    """Proposals as released, for the pictures of the parts `trainval` and `test`.

    Raises EarshotError for a file that is missing, has another layout or says nothing of a picture.
    """
    folder, shards = scratch / "proposals", dict[str, int]()
    for number, (part, files) in enumerate(parts.items()):
        source = data_dir / "selective_search_data" / f"voc_2007_{part}.mat"
        boxes = {name: found for name, found in read_released(source) if name}
        missing = [file.stem for file in files if file.stem not in boxes]
        if missing:
            raise EarshotError(f"{source}: says nothing of picture {missing[0]}; restore the file")
        _write_shard(folder, number, {file.stem: boxes[file.stem] for file in files})
        shards |= {file.stem: number for file in files}
    return Proposals(folder, shards, kept)


def read_released(file: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each picture and its proposals, float32 (proposals, 4), of a released file.

    Raises EarshotError for a file of another layout.
    """
    try:
        found = scipy.io.loadmat(file, variable_names=["images", "boxes"])
    # loadmat says of bytes that are no MATLAB file whatever comes first.
    except Exception as error:
        raise EarshotError(f"{file}: cannot be read ({str(error)[:200]}); wanted {LAYOUT}") from None
    images, boxes = (found.get(name, np.empty(0)).ravel() for name in ("images", "boxes"))
    if images.dtype != object or len(images) != len(boxes) or not len(images):
        raise EarshotError(f"{file}: holds {len(images)} images and {len(boxes)} boxes in cells, wanted {LAYOUT}")
    for number, (name, rows) in enumerate(zip(images, boxes, strict=True), 1):
        rows = np.asarray(rows)
        if rows.ndim != 2 or rows.shape[1] != 4 or rows.dtype.kind not in "iuf" or not np.isfinite(rows).all():
            raise EarshotError(f"{file}: boxes {number} are {rows.dtype} {rows.shape}, wanted {LAYOUT}")
        top, left, bottom, right = rows.astype(np.float32).T
        yield Path(str(np.asarray(name).ravel()[0])).stem, np.column_stack([left - 1, top - 1, right, bottom])


def _search_shard(number: int, files: Sequence[Path], folder: Path) -> dict[str, int]:
    found = {}
    for file in files[number * SHARD_IMAGES : (number + 1) * SHARD_IMAGES]:
        rows = read_whole_image(file).permute(1, 2, 0).numpy()  # (height, width, 3)
        found[file.stem] = selective_search(np.ascontiguousarray(rows[..., ::-1]))
    _write_shard(folder, number, found)
    return {"images": len(found), "proposals": sum(map(len, found.values()))}


def _write_shard(folder: Path, number: int, boxes: dict[str, np.ndarray]) -> None:
    with write_atomically(folder / f"{shard_name(number)}.safetensors") as temporary_path:
        temporary_path.write_bytes(save(boxes))
