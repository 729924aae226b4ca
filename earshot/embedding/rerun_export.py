"""The clips of a run as a recording for the Rerun viewer, one after another on its timeline `time`.

| entity | at the time |
|---|---|
| clip/about | when the clip begins: name, file, split, annotations, flags, measurements |
| clip/sound | when it begins: FLAC |
| clip/frame | when it was taken: JPEG |
| clip/embedding/audio, clip/embedding/image | when it begins: mean over the clip |
| refused | of the last clip of its shard: name, reason and detail |

The timeline `clip` counts the clips.
"""

import importlib
from pathlib import Path
from typing import Any

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.messages import printable
from earshot.embedding.clip_export import ClipEmbeddings, clip_rows

GAP = 0.5  # seconds between clips
MEASURED = ("peak", "clipped", "change")


def write_rerun(root: Path, output: Path, embeddings: ClipEmbeddings | None = None) -> int:
    """Write a recording (.rrd) of the clips of a run; return their number.

    Raises EarshotError if the stage extract has not run under `root`, or rerun-sdk is not installed.
    """
    try:
        rerun = importlib.import_module("rerun")
    except ImportError:
        raise EarshotError("--to rerun requires rerun-sdk; run pip install 'earshot[inspect]'") from None
    number, begin = 0, 0.0
    with write_atomically(output) as temporary:
        recording = rerun.RecordingStream("earshot", recording_id=output.stem)
        recording.save(temporary)
        for number, row in enumerate(clip_rows(root, embeddings), 1):
            recording.set_time("clip", sequence=number)
            recording.set_time("time", duration=begin)
            if row["status"] == "kept":
                _log_clip(rerun, recording, row, begin)
                begin += row["duration"] + GAP
            else:
                text = printable(f"{row['clip_id']}: {row['reason']}, {row['detail']}")
                recording.log("refused", rerun.TextLog(text, level="WARN"))
        recording.disconnect()
    return number


def _log_clip(rerun: Any, recording: Any, row: dict[str, Any], begin: float) -> None:
    about = {name: row[name] for name in ("source", "group", "split")}
    about |= {name: ", ".join(row[name]) for name in ("annotations", "flags")}
    about |= {name: f"{row[name]:.4g}" for name in MEASURED}
    text = "\n".join([row["clip_id"], *(f"{name}: {value}" for name, value in about.items() if value)])
    recording.log("clip/about", rerun.TextDocument(text, media_type="text/plain"))
    recording.log("clip/sound", rerun.AssetAudio(contents=row["sound"], media_type="audio/flac"))
    for name in ("audio", "image"):
        if f"{name}_embedding" in row:
            recording.log(f"clip/embedding/{name}", rerun.BarChart(row[f"{name}_embedding"]))
    for time, frame in zip(row["times"], row["frames"], strict=True):
        recording.set_time("time", duration=begin + time)
        recording.log("clip/frame", rerun.EncodedImage(contents=frame, media_type="image/jpeg"))
