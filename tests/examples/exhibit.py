"""Some frames: as earshot/exhibits/frames.py it runs if params.yaml has a group `explain.frames`."""

import pyarrow as pa

from earshot.core.params import Positive
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult
from earshot.explanation.frames import FramePool
from earshot.explanation.tables import BYTES, TEXT, write_table
from earshot.params.explain import ExhibitParams


class Params(ExhibitParams):
    """The number of frames."""

    frames: Positive


TABLES = {"frames": pa.schema({"clip_id": TEXT, "frame": BYTES})}


def make(context: ExhibitContext) -> ExhibitResult:
    pool = FramePool(context.scenes, context.params.frames, "train")
    rows = ({"clip_id": frame.clip_id, "frame": frame.jpeg} for batch in pool.batches() for frame in batch)
    frames = write_table(context.folder, TABLES, "frames", rows)
    return ExhibitResult({}, {"frames": frames}, f"{frames} frames of the training split")


EXHIBIT = Exhibit(title="Frames", params=Params, make=make, tables=TABLES, metrics=("frames",))
