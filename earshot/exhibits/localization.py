"""Localization: maps of where a sound comes from, over images with boxes and over whole clips with their sound.

A map is the network's log-odds at every position, as in the benchmark, scaled to the image bilinearly. AVOL has a map
of its own (Arandjelovic & Zisserman 2018, section 4); L3 and AVE compare the sound with each position. The color range
spans the minimum and maximum of an image's map, or of all maps of a clip, so that changes over time are visible.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from earshot.core.channels import mix_channels
from earshot.core.params import Count, Positive
from earshot.evaluation.clips.clip_embeddings import load_correspondences
from earshot.evaluation.clips.images_with_sound import LocalizationExample, read_dataset
from earshot.evaluation.clips.localization_maps import localization_maps, middle_slice, score
from earshot.evaluation.image_files import read_image, read_whole_image
from earshot.explanation.encoders import why_no_towers
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
from earshot.explanation.media import jpeg_of, mp3_of, stretched, under_map
from earshot.explanation.sampling import draw_evenly
from earshot.explanation.tables import BYTES, FLAG, REAL, TEXT, TEXTS, write_table
from earshot.explanation.videos_with_sound import FRAME_RATE, LONGEST_SECONDS, video_rows
from earshot.media.guarded_files import read_sound_file
from earshot.networks.audio_visual_base import Correspondence
from earshot.params.explain import ExhibitParams

SIDE = 320  # px of the long side of an image
AUDIO_SECONDS = 10  # of a recording, around the middle, which the network takes as input
LINE, RADIUS = 2, 6  # px of a box's edges, and of the ring around the highest point
MAP_SCALE = "from the minimum to the maximum of each image's map, or of all maps of a clip"
TABLES = {
    "localized": pa.schema({  # images with boxes, by name
        "name": TEXT,
        "class": TEXT,
        "hit": FLAG,  # the map's highest point lies in a box
        "control_hit": FLAG,  # that of a random network
        "image": BYTES,  # with its boxes
        "heat": BYTES,  # the same with the map over it
        "sound": BYTES,
    }),
    "videos_with_sound": pa.schema({  # clips (at most 30 s) under their maps, with their sound
        "clip_id": TEXT,
        "annotations": TEXTS,
        "seconds": REAL,
        "poster": BYTES,
        "video": BYTES,
    }),
}  # fmt: skip


class LocalizationExhibitParams(ExhibitParams):
    """The number of images and of whole clips."""

    images: Positive
    videos: Count


def make(context: ExhibitContext) -> ExhibitResult:
    """The tables localized and videos_with_sound."""
    if reason := why_no_towers(context.encoder):
        return skipped(reason)
    networks, data_dir = load_correspondences(context.encoder), read_dataset(context.data_dir)
    drawn = draw_evenly([image.kind for image in data_dir], context.params.images, context.seed)
    rows = image_rows([data_dir[number] for number in sorted(drawn)], networks)
    images = write_table(context.folder, TABLES, "localized", rows)
    videos = write_table(context.folder, TABLES, "videos_with_sound", video_rows(context, networks[""]))
    metadata = {
        "network": networks[""].architecture["name"],
        "map_scale": MAP_SCALE,
        "frames_per_second": FRAME_RATE,
        "longest_seconds": LONGEST_SECONDS,
    }
    closing = f"{images} of {len(data_dir):,} images and {videos} clips under the map of {metadata['network']}"
    return ExhibitResult(metadata, {"images": images, "videos": videos}, closing)


def image_rows(images: list[LocalizationExample], networks: Mapping[str, Correspondence]) -> Iterator[dict[str, Any]]:
    """Each image, plain and under the map, and whether the peak of the map and of a random network's is in a box."""
    for example in images:
        maps, hits = {}, {}
        for prefix in ("", "random_"):
            network = networks[prefix]
            pixels = read_image(example.frame, network.image_size, network.image_size)
            maps[prefix] = localization_maps(network, pixels[None], middle_slice(example.sound, network)[None])[0]
            hits[prefix] = bool(score(maps[prefix][None], example.truth()[None])["peak"][0])
        image = _image(example)
        yield {
            "name": example.frame.stem,
            "class": example.kind,
            "hit": hits[""],
            "control_hit": hits["random_"],
            "image": jpeg_of(_boxed(image, example), SIDE),
            "heat": jpeg_of(_marked(_boxed(under_map(image, stretched(maps[""])), example), maps[""]), SIDE),
            "sound": _recording_mp3(example),
        }


def _image(example: LocalizationExample) -> Image.Image:
    """The image with its long side scaled to SIDE px."""
    image = Image.fromarray(read_whole_image(example.frame).permute(1, 2, 0).numpy())
    scale = SIDE / max(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _boxed(image: Image.Image, example: LocalizationExample) -> Image.Image:
    """The image with the boxes of the sound's source, as white lines between black ones."""
    boxed = image.copy()
    pen = ImageDraw.Draw(boxed)
    for box in example.boxes:
        corners = np.array(box) * np.tile(image.size, 2)
        for margin, color, width in ((1, "black", LINE + 2), (0, "white", LINE)):
            (left, top), (right, bottom) = np.sort(corners.reshape(2, 2), axis=0)
            pen.rectangle((left - margin, top - margin, right + margin, bottom + margin), outline=color, width=width)
    return boxed


def _marked(image: Image.Image, values: np.ndarray) -> Image.Image:
    """The image, changed in place, with a ring around the peak of a map (height, width)."""
    row, column = np.unravel_index(values.argmax(), values.shape)
    center = ((np.array([column, row]) + 0.5) / values.shape[::-1] * image.size).tolist()
    pen = ImageDraw.Draw(image)
    for color, width in (("black", LINE + 2), ("white", LINE)):
        pen.circle(center, RADIUS + (width - LINE) // 2, outline=color, width=width)
    return image


def _recording_mp3(example: LocalizationExample) -> bytes:
    """The middle of the recording as MP3."""
    sound, rate = read_sound_file(example.sound)
    length = min(len(sound), AUDIO_SECONDS * rate)
    first = (len(sound) - length) // 2
    return mp3_of(mix_channels(sound[first : first + length]), rate)


EXHIBIT = Exhibit(
    title="Localization", params=LocalizationExhibitParams, make=make, tables=TABLES, metrics=("images", "videos")
)
