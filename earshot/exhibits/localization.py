"""Localisation: the map of where a sound comes from, over pictures with boxes and over whole clips with their sound.

A map is the network's log-odds at every position, as the benchmark scores them, scaled up bilinear to the picture:
AVOL's own (Arandjelovic & Zisserman 2018, section 4), or that of L3 and AVE compared position by position. Shown are
not the odds but where they are higher and lower: a picture's map from its least to its greatest value, and the maps of
a clip from the least to the greatest of all its frames, so that what changes is seen.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
from PIL import Image, ImageDraw

from earshot.core.params import Count, Positive
from earshot.evaluation.clips.clip_embeddings import load_correspondences
from earshot.evaluation.clips.images_with_sound import LocalizationExample, read_dataset
from earshot.evaluation.clips.localization_maps import localization_maps, middle_slice, score
from earshot.evaluation.image_files import read_image, read_whole_image
from earshot.explanation.encoders import why_no_towers
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
from earshot.explanation.media import jpeg_of, mp3_of, stretched, under_map
from earshot.explanation.sampling import draw_evenly
from earshot.explanation.tables import BYTES, FLAG, REAL, TEXT, TEXTS, write_table
from earshot.explanation.videos_with_sound import FRAME_RATE, LONGEST_SECONDS, video_rows
from earshot.networks.audio_visual_base import Correspondence
from earshot.params.explain import ExhibitParams

SIDE = 320  # px of a picture's long side: boxes are drawn thin on it
AUDIO_SECONDS = 10  # of a recording, around the middle, which is what the network hears
LINE, RADIUS = 2, 6  # px of a box's edges, and of the ring around the highest point
MAP_SCALE = "from the least to the greatest value of each picture's map, or of all maps of a clip"
TABLES = {
    "localized": pa.schema({  # pictures with boxes, by name
        "name": TEXT,
        "class": TEXT,
        "hit": FLAG,  # the map's highest point lies in a box
        "control_hit": FLAG,  # that of a random network
        "shown": BYTES,  # boxes are drawn
        "heat": BYTES,  # the same under the map
        "sound": BYTES,
    }),
    "sounding_videos": pa.schema({  # whole clips, of long ones the first half minute, under the map, with their sound
        "clip_id": TEXT,
        "annotations": TEXTS,
        "seconds": REAL,
        "poster": BYTES,
        "video": BYTES,
    }),
}  # fmt: skip


class Params(ExhibitParams):
    """How many pictures and whole clips."""

    images: Positive
    videos: Count


def make(context: Context) -> ExhibitResult:
    """The tables localised and sounding_videos."""
    if reason := why_no_towers(context.encoder):
        return skipped(reason)
    networks, data_dir = load_correspondences(context.encoder), read_dataset(context.data_dir)
    drawn = draw_evenly([image.kind for image in data_dir], context.params.images, context.seed)
    rows = image_rows([data_dir[number] for number in sorted(drawn)], networks)
    images = write_table(context.folder, TABLES, "localized", rows)
    videos = write_table(context.folder, TABLES, "sounding_videos", video_rows(context, networks[""]))
    metadata = {
        "network": networks[""].architecture["name"],
        "map_scale": MAP_SCALE,
        "frames_per_second": FRAME_RATE,
        "longest_seconds": LONGEST_SECONDS,
    }
    closing = f"{images} of {len(data_dir):,} pictures and {videos} clips under the map of {metadata['network']}"
    return ExhibitResult(metadata, {"images": images, "videos": videos}, closing)


def image_rows(images: list[LocalizationExample], networks: Mapping[str, Correspondence]) -> Iterator[dict[str, Any]]:
    """The pictures in their order, as they are and under the map, and whether it and a random network's hit a box."""
    for located in images:
        maps, hits = {}, {}
        for prefix in ("", "random_"):
            network = networks[prefix]
            seen = read_image(located.frame, network.image_size, network.image_size)
            maps[prefix] = localization_maps(network, seen[None], middle_slice(located.sound, network)[None])[0]
            hits[prefix] = bool(score(maps[prefix][None], located.truth()[None])["peak"][0])
        image = _image(located)
        yield {
            "name": located.frame.stem,
            "class": located.kind,
            "hit": hits[""],
            "control_hit": hits["random_"],
            "shown": jpeg_of(_boxed(image, located), SIDE),
            "heat": jpeg_of(_marked(_boxed(under_map(image, stretched(maps[""])), located), maps[""]), SIDE),
            "sound": _heard(located),
        }


def _image(located: LocalizationExample) -> Image.Image:
    """The picture, its long side brought to SIDE px."""
    image = Image.fromarray(read_whole_image(located.frame).permute(1, 2, 0).numpy())
    scale = SIDE / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _boxed(image: Image.Image, located: LocalizationExample) -> Image.Image:
    """The picture with the boxes around what is heard, white between black lines."""
    boxed = image.copy()
    pen = ImageDraw.Draw(boxed)
    for box in located.boxes:
        corners = np.array(box) * np.tile(image.size, 2)
        for grown, color, width in ((1, "black", LINE + 2), (0, "white", LINE)):
            (left, top), (right, bottom) = np.sort(corners.reshape(2, 2), axis=0)
            pen.rectangle((left - grown, top - grown, right + grown, bottom + grown), outline=color, width=width)
    return boxed


def _marked(image: Image.Image, values: np.ndarray) -> Image.Image:
    """The picture, in place, with a ring around the highest point of a map (height, width)."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    center = ((np.array([column, row]) + 0.5) / values.shape[::-1] * image.size).tolist()
    pen = ImageDraw.Draw(image)
    for color, width in (("black", LINE + 2), ("white", LINE)):
        pen.circle(center, RADIUS + (width - LINE) // 2, outline=color, width=width)
    return image


def _heard(located: LocalizationExample) -> bytes:
    """The middle of the recording as MP3."""
    with soundfile.SoundFile(located.sound) as file:  # which the network has heard before
        length = min(file.frames, AUDIO_SECONDS * file.samplerate)
        file.seek((file.frames - length) // 2)
        return mp3_of(file.read(length, dtype="float32", always_2d=True).mean(1), file.samplerate)


EXHIBIT = Exhibit(title="Localization", params=Params, make=make, tables=TABLES, metrics=("images", "videos"))
