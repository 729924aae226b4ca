"""Whole clips under their localization maps, as videos with sound."""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.errors import EarshotError
from earshot.core.files import shard_name
from earshot.corpus.ledger import Refusal
from earshot.evaluation.clips.clip_embeddings import BATCH, CENTERED, clip_names, read_all_annotations
from earshot.evaluation.clips.localization_maps import localization_maps
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.media import jpeg_of, read_image, stretched, under_map
from earshot.explanation.sampling import draw_evenly
from earshot.explanation.video import mp4_of
from earshot.media.clips import MediaFile, read_listing
from earshot.media.decoder_process import Decoder
from earshot.media.decoding import Decoded, DecodeOptions
from earshot.media.listing import list_shards
from earshot.networks.audio_visual_base import Correspondence
from earshot.scenes import clips

SPLIT = "test"
FRAME_RATE = 10  # frames per second
HEIGHT, WIDEST = 256, 456  # px of a video; wider ones are lower
LONGEST_SECONDS = 30.0  # maximum length of a video
DRAWN = 3  # clips drawn for every video, in case some can no longer be decoded
LISTED = 250  # files per listing of a folder
# The stage extract has decoded the clips within its limits; these limits only stop a decoder that hangs.
DECODE_SECONDS, MINUTES, MEGAPIXELS = 120.0, 60.0, 100.0


def video_rows(context: ExhibitContext, network: Correspondence) -> Iterator[dict[str, Any]]:
    """At most params.videos clips of the test split, alternating between annotations.

    Raises EarshotError if a clip is no longer in corpus.clips.
    """
    annotations, spec = read_all_annotations(context.annotations), clips.InputSpec.by(network)
    names = list(clip_names(context.scenes, spec, SPLIT))
    classes = [next(iter(annotations.get(name, ())), "") for name in names]
    drawn = [names[number] for number in draw_evenly(classes, DRAWN * context.params.videos, context.seed)]
    if not drawn:
        return
    listed, written = find_clips(context.clips, set(drawn), context.scratch, context.follow_links), 0
    with Decoder(DECODE_SECONDS, (clip.path for clip in listed.values() if not clip.refusal)) as decoder:
        for name in drawn:
            if name not in listed:
                raise EarshotError(
                    f"{context.clips}: has no clip {name}, which is in data/scenes; run the stage extract again"
                )
            clip = listed[name]
            try:
                decoded = decoder.decode(clip.path, clip.offset, clip.size, whole_clip())
            except Refusal:  # it can no longer be decoded
                continue
            yield video_row(name, annotations.get(name, []), decoded, network)
            written += 1
            if written == context.params.videos:
                return


def find_clips(
    corpus: Path, names: Container[str], scratch: Path, follow_links: Sequence[Path] = ()
) -> dict[str, MediaFile]:
    """The locations of the clips with these names."""

    def listing(number: int) -> Path:
        return scratch / "listing" / f"{shard_name(number)}.json"

    shards = range(list_shards(corpus, LISTED, listing, scratch=scratch / "unpacked", follow_links=follow_links))
    listed = (clip for number in shards for clip in read_listing(listing(number)))
    return {clip.clip_id: clip for clip in listed if clip.clip_id in names}


def whole_clip() -> DecodeOptions:
    """Options that decode all of a clip: its sound, and FRAME_RATE frames per second."""
    return DecodeOptions(
        places=(),
        frame_size=HEIGHT,
        jpeg_quality=95,
        window_s=0.0,
        min_duration_s=0.0,
        max_duration_s=MINUTES * 60,
        max_pixels=round(MEGAPIXELS * 1e6),
        sequence_rate=FRAME_RATE,
        sequence_size=HEIGHT,
    )


def video_row(name: str, annotations: list[str], decoded: Decoded, network: Correspondence) -> dict[str, Any]:
    """A clip with a map over every frame, from the frame and the sound centered on it, or the nearest whole slice."""
    seconds = min(decoded.duration, LONGEST_SECONDS)
    jpegs = decoded.sequence[: int(seconds * FRAME_RATE)]
    maps = stretched(clip_maps(jpegs, decoded, network))
    size = _size(read_image(jpegs[0]))

    def overlay(number: int) -> Image.Image:
        return under_map(read_image(jpegs[number]).resize(size, Image.Resampling.BICUBIC), maps[number])

    frames = (overlay(number) for number in range(len(jpegs)))
    return {
        "clip_id": name,
        "annotations": annotations,
        "seconds": seconds,
        "poster": jpeg_of(overlay(len(jpegs) // 2), WIDEST),
        "video": mp4_of(frames, size, FRAME_RATE, decoded.sound, seconds),
    }


def clip_maps(jpegs: list[bytes], decoded: Decoded, network: Correspondence) -> np.ndarray:
    """The maps of all frames, log-odds, float32 (frames, SIDE, SIDE)."""
    clip, spec = clips.SceneClip("", "", decoded.duration, decoded.sound, (), ()), clips.InputSpec.by(network)
    maps = []
    for first in range(0, len(jpegs), BATCH):
        numbers = range(first, min(first + BATCH, len(jpegs)))
        starts = [CENTERED.start(clip, number / FRAME_RATE, spec.seconds, 0) for number in numbers]
        pixels = torch.stack([_squeezed(jpegs[number], network.image_size) for number in numbers])
        audio = torch.from_numpy(np.stack([spec.cut(clip, start) for start in starts]))
        maps.append(localization_maps(network, pixels, audio))
    return np.concatenate(maps)


def _squeezed(jpeg: bytes, side: int) -> Tensor:
    """A whole frame scaled as in the benchmark: uint8 (3, side, side)."""
    image = torch.from_numpy(np.array(read_image(jpeg))).permute(2, 0, 1)
    return interpolate(image[None], (side, side), mode="bilinear", antialias=True)[0]


def _size(image: Image.Image) -> tuple[int, int]:
    """Even width and height of a video, at most HEIGHT px high."""
    scale = min(HEIGHT / image.height, WIDEST / image.width)
    width, height = (max(2 * round(side * scale / 2), 2) for side in image.size)
    return width, height
