"""The clips of a run as a dataset of FiftyOne, which its app shows: one sample a frame.

| field | |
|---|---|
| clip_id, source, source_group, duration | name of the clip, its file, its group, its length in s |
| time | of the frame, in s |
| annotations | of humans, as classifications |
| tags | the split and the flags; `refused` of a refused clip, which has no frame |
| peak, clipped, change | the measurements behind the flags |
| sound | the clip's FLAC, a path within the dataset's folder |
| audio_embedding, image_embedding | mean over the clip |
| reason, detail | why a clip was refused |

The view `clips` shows the frames of a clip as one.
"""

import importlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from earshot.core.errors import EarshotError
from earshot.core.messages import printable
from earshot.embedding.clip_export import ClipEmbeddings, clip_rows

COPIED = ("clip_id", "source", "duration", "peak", "clipped", "change", "reason", "detail")
EMBEDDINGS = ("audio_embedding", "image_embedding")
SAMPLES_AT_ONCE = 1000
BLANK = "refused.png"  # what the app shows for a refused clip


def write_fiftyone(root: Path, output: Path, embeddings: ClipEmbeddings | None = None) -> int:
    """Write a folder in the format FiftyOneDataset of the clips of a run; return their number.

    Raises EarshotError if the stage extract has not run under `root`, FiftyOne is not installed, or `output` exists.
    """
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")  # it would report its use to its makers
    try:
        fiftyone = importlib.import_module("fiftyone")
    except ImportError:
        raise EarshotError("--to fiftyone requires FiftyOne; run pip install 'earshot[fiftyone]'") from None
    if output.exists():
        raise EarshotError(f"{output} exists; remove it, or name another folder")
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    dataset = fiftyone.Dataset()
    try:
        number, waiting = 0, list[Any]()
        for number, row in enumerate(clip_rows(root, embeddings), 1):
            waiting += _samples(fiftyone, folder, number, row)
            if len(waiting) >= SAMPLES_AT_ONCE:
                dataset.add_samples(waiting, progress=False)
                waiting = []
        dataset.add_samples(waiting, progress=False)
        if number:
            dataset.save_view("clips", dataset.group_by("clip_id", order_by="time"))
        kind = fiftyone.types.FiftyOneDataset
        dataset.export(str(folder), dataset_type=kind, export_media=False, rel_dir=str(folder), progress=False)
        folder.chmod(0o755)
        folder.rename(output)
    finally:
        dataset.delete()
        shutil.rmtree(folder, ignore_errors=True)
    return number


def _samples(fiftyone: Any, folder: Path, number: int, row: dict[str, Any]) -> Iterator[Any]:
    """The samples of a clip; writes its sound and frames."""
    fields = {name: row[name] for name in COPIED if row.get(name) not in (None, "")}
    fields |= {name: printable(value) for name, value in fields.items() if isinstance(value, str)}
    fields |= {name: np.array(row[name], np.float32) for name in EMBEDDINGS if name in row}
    if row["status"] != "kept":
        if not (folder / BLANK).exists():
            Image.new("RGB", (64, 64), "gray").save(folder / BLANK)
        yield fiftyone.Sample(str(folder / BLANK), tags=["refused"], **fields)
        return
    place = Path(f"{number // SAMPLES_AT_ONCE:06d}")
    (folder / place).mkdir(exist_ok=True)
    sound = place / f"{number:08d}.flac"
    (folder / sound).write_bytes(row["sound"])
    labels = [fiftyone.Classification(label=printable(name)) for name in row["annotations"]]
    fields |= {
        "sound": str(sound),
        "source_group": row["group"],
        "annotations": fiftyone.Classifications(classifications=labels),
    }
    for index, (time, frame) in enumerate(zip(row["times"], row["frames"], strict=True)):
        image = folder / place / f"{number:08d}-{index:03d}.jpg"
        image.write_bytes(frame)
        yield fiftyone.Sample(str(image), tags=[row["split"], *row["flags"]], time=time, **fields)
