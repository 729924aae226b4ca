"""Semantic heat maps: where in frames and spectrograms units respond (Arandjelovic & Zisserman 2017, section 3.5).

A unit of conv4_2 of either tower is ranked by how many of the moments that activate it most, one a source video, are
annotated alike; those that prefer an annotation most are shown, at most two for each. A heat map is the unit's own map
after the ReLU, scaled to the frame or the spectrogram. As in the paper one can only tell what is due to training from
what random weights give, which is shown beside it.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from earshot.core.params import Positive, SplitName
from earshot.evaluation.clips.clip_embeddings import (
    clips_of_split,
    describe_clips,
    load_correspondences,
    middle_moment,
    read_all_annotations,
)
from earshot.evaluation.encoders import load_encoders
from earshot.explanation.activations import TopActivations
from earshot.explanation.encoders import NETWORKS, hears, why_no_maps
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
from earshot.explanation.media import LONGEST_SIDE, jpeg_of, mp3_of, read_image, spectrogram_png, under_map
from earshot.explanation.receptive_fields import Fields, measure_fields, scaled
from earshot.explanation.selectivity import hashes, purity
from earshot.explanation.tables import BYTES, INT, MOMENT, REAL, TEXT, write_table
from earshot.networks.crops import crop_frames
from earshot.networks.device import get_device, on_device
from earshot.networks.network import Convolutional, ImageEncoder
from earshot.networks.spectrogram import RATE, SAMPLES
from earshot.networks.two_towers import TwoTowers
from earshot.params.explain import ExhibitParams
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.clips import InputSpec, SceneClip

COMPARED = ("", "random_")  # networks, by the prefix of their metrics
MOST_A_CLASS = 2  # units
TIES = 2  # units that prefer something equally are ranked by so many times as many moments
HEAT_STEPS = 128  # colours of a spectrogram under a map
PROTOCOL = (
    "the units whose strongest moments, one a source video, are most often annotated alike, at most two a class; their "
    "maps after the ReLU"
)

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
Modalities = Mapping[str, tuple[Fields, Fields]]  # the fields of the maps of each, from top to bottom and across
TABLES = {
    "heatmaps": pa.schema({  # by network, sense, unit (those that prefer an annotation most come first) and rank
        "network": TEXT,
        "modality": TEXT,  # picture or sound
        "unit": INT,
        "rank": INT,
        "annotation": TEXT,  # of most of the unit's top moments
        "share": REAL,
        **MOMENT,
        "shown": BYTES,  # the frame or spectrogram
        "heat": BYTES,  # the same under the unit's heat map
        "sound": BYTES,  # one second; empty of pictures
    })
}  # fmt: skip


class Params(ExhibitParams):
    """How many units, and moments of each."""

    split: SplitName
    units: Positive
    examples: Positive


@dataclass(frozen=True)
class Chosen:
    """A unit that is shown.

    Args:
        annotation, share: what most of its strongest moments are annotated with, and the share of them.
        maximum: its largest activation over all moments.
        clips: whose moments activate it most, the strongest first.
    """

    unit: int
    annotation: str
    share: float
    maximum: float
    clips: list[str]


def make(context: Context) -> ExhibitResult:
    """The table heatmaps."""
    if reason := why_no_maps(context.encoder):
        return skipped(reason)
    networks, wanted = load_networks(context)
    # Of which kinds they are, why_no_maps has made sure.
    modalities = {"image": measure_fields(cast(Convolutional, networks[""]).convolve)}
    if hears(context.encoder):
        modalities["sound"] = measure_fields(cast(TwoTowers, networks[""]).audio_tower, channels=1)
    for network in networks.values():
        on_device(network)
    said = read_all_annotations(context.annotations)
    names, strengths = describe(context, networks, wanted, modalities, said)
    if not names:
        return skipped(f"no clip of the split {context.params.split} is annotated")
    chosen = {
        (prefix, modality): choose(values, names, said, context.params.units, context.params.examples)
        for (prefix, modality), values in strengths.items()
    }
    write_table(context.folder, TABLES, "heatmaps", draw_all(context, networks, wanted, modalities, said, chosen))
    metrics: dict[str, Any] = {"clips": len(names)}
    for (prefix, modality), units in chosen.items():
        metrics[f"{prefix}units_{modality}"] = len(units)
        metrics[f"{prefix}share_{modality}"] = float(np.mean([each.share for each in units])) if units else 0.0
    told = ", ".join(
        f"{modality} {metrics[f'share_{modality}']:.2f} (random {metrics[f'random_share_{modality}']:.2f})"
        for modality in modalities
    )
    closing = f"of a shown unit's top {context.params.examples} moments are annotated alike: {told}"
    metadata = {"split": context.params.split, "modalities": ", ".join(modalities), "protocol": PROTOCOL}
    return ExhibitResult(metadata | {"network": networks[""].architecture["name"]}, metrics, closing)


def load_networks(context: Context) -> tuple[dict[str, ImageEncoder], InputSpec]:
    """The trained and the random network, on the CPU, and what they take of a clip.

    Raises EarshotError where one cannot be read.
    """
    corresponds = hears(context.encoder)
    loaded = load_correspondences(context.encoder) if corresponds else load_encoders(context.encoder)
    networks = {prefix: loaded[prefix].cpu() for prefix in COMPARED}
    if corresponds:
        return networks, InputSpec.by(networks[""])
    size = networks[""].image_size
    return networks, InputSpec(image_size=size, frames=1, audio_samples=0, audio_rate=1, audio_channels=1)


def describe(
    context: Context, networks: Mapping[str, ImageEncoder], wanted: InputSpec, modalities: Modalities, said: Annotations
) -> tuple[list[tuple[str, str]], dict[tuple[str, str], np.ndarray]]:
    """Clips and groups of the annotated moments; and by network and sense how strongly each unit responds anywhere.

    The latter are float32 (clips, units).
    """
    clips = clips_of_split(context.data_dir, wanted, context.params.split)
    names, images, sounds = describe_clips(
        context.data_dir,
        (clip for clip in clips if said.get(clip.clip_id)),
        wanted,
        networks,
        lambda network, images: maps_of("image", network, images).amax((2, 3)),
        (lambda network, sounds: maps_of("sound", network, sounds).amax((2, 3))) if "sound" in modalities else None,
        "heatmaps",
    )
    found = {"image": images, "sound": sounds}
    return names, {
        (prefix, modality): found[modality][prefix] for prefix in networks for modality in modalities if names
    }


def maps_of(modality: str, network: Any, given: Tensor) -> Tensor:
    """conv5 of pictures, or conv4_2 of sounds, after the ReLU: (n, units, height, width)."""
    return network.convolve(network.normalize(given)) if modality == "image" else network.audio_maps(given).relu()


def choose(
    strengths: np.ndarray, names: Sequence[tuple[str, str]], said: Annotations, units: int, examples: int
) -> list[Chosen]:
    """The units that prefer an annotation most, at most MOST_A_CLASS for each, the purest first.

    Units that do so equally are ranked by TIES times as many moments, and by their numbers.

    Args:
        strengths: of each unit in each clip's moment, (clips, units).
        names: clip and group of each.
        units: how many to choose at most.
        examples: moments that tell what a unit prefers.
    """
    strongest = TopActivations(strengths.shape[1], TIES * examples)
    groups, keys = hashes([group for _, group in names]), hashes([clip for clip, _ in names])
    strongest.add(strengths, np.arange(len(names)), groups, keys)
    found = []
    for unit in range(strengths.shape[1]):
        clips = [names[number][0] for number in strongest.of(unit, TIES * examples)]
        (annotation, share), (_, among_more) = (
            purity([said[clip] for clip in clips[:count]], count) for count in (examples, TIES * examples)
        )
        if clips:
            maximum = float(strongest.maxima[unit])
            found.append((share, among_more, Chosen(unit, annotation, share, maximum, clips[:examples])))
    found.sort(key=lambda entry: (-entry[0], -entry[1], entry[2].unit))
    chosen: list[Chosen] = []
    shown: Counter[str] = Counter()
    for _, _, each in found:
        shown[each.annotation] += 1
        if shown[each.annotation] <= MOST_A_CLASS:
            chosen.append(each)
    return chosen[:units]


@torch.inference_mode()
def draw_all(
    context: Context,
    networks: Mapping[str, ImageEncoder],
    wanted: InputSpec,
    modalities: Modalities,
    said: Annotations,
    chosen: Mapping[tuple[str, str], Sequence[Chosen]],
) -> list[dict[str, Any]]:
    """The rows of the table heatmaps; of each clip that is shown the moment is read once."""
    places = defaultdict(list)  # by clip: network, sense, number and rank of the unit
    for (prefix, modality), units in chosen.items():
        for number, each in enumerate(units):
            for rank, name in enumerate(each.clips):
                places[name].append((prefix, modality, number, rank))
    rows = {}
    for clip in clips_of_split(context.data_dir, wanted, context.params.split, places):
        moment = Moment(clip, wanted, "sound" in modalities)
        for place in places[clip.clip_id]:
            prefix, modality, number, rank = place
            unit = chosen[prefix, modality][number]
            shown, heat, sound = moment.draw(modality, networks[prefix], unit, modalities[modality])
            rows[list(chosen).index((prefix, modality)), number, rank] = {
                "network": NETWORKS[prefix],
                "modality": modality,
                "unit": unit.unit,
                "rank": rank + 1,
                "annotation": unit.annotation,
                "share": unit.share,
                "clip_id": clip.clip_id,
                "moment": moment.number,
                "group": clip.group,
                "annotations": said[clip.clip_id],
                "shown": shown,
                "heat": heat,
                "sound": sound,
            }
    return [rows[place] for place in sorted(rows)]


class Moment:
    """The moment of a clip that is nearest to its middle: what is seen and heard of it, and maps over both."""

    def __init__(self, clip: SceneClip, wanted: InputSpec, heard: bool) -> None:
        self.number, start = middle_moment(clip, wanted.seconds)
        self.image = middle_square(read_image(clip.frames[self.number]))
        self.seen = crop_frames([clip.frames[self.number]], wanted.image_size)
        if heard:
            self.sound = sound_slice(clip.sound, start, samples=SAMPLES, rate=RATE, channels=1)

    def draw(
        self, modality: str, network: Any, unit: Chosen, fields: tuple[Fields, Fields]
    ) -> tuple[bytes, bytes, bytes]:
        """The frame or the spectrogram, the same under the unit's map, where 1 is its maximum, and the sound as MP3."""
        device = get_device()
        if modality == "image":
            maps = maps_of(modality, network, self.seen.to(device))
            heat = _heat(maps, unit, fields, self.seen.shape[2:], self.image.size[::-1])
            return jpeg_of(self.image), jpeg_of(under_map(self.image, heat)), b""
        sound = torch.from_numpy(self.sound)[None].to(device)
        power = network.spectrogram(sound)[0, 0].cpu().numpy()  # (frequencies, times)
        heat = _heat(maps_of(modality, network, sound), unit, fields, power.shape, power.shape)
        graph = spectrogram_png(power)
        gray = read_image(graph).convert("L").convert("RGB")  # its colours are as light as they are high
        return graph, _png(under_map(gray, heat[::-1])), mp3_of(self.sound, RATE)


def middle_square(image: Image.Image) -> Image.Image:
    """What networks see of a frame: its middle square, here of at most LONGEST_SIDE px."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    small = min(side, LONGEST_SIDE)
    return square.resize((small, small), Image.Resampling.LANCZOS)


def _heat(
    maps: Tensor, unit: Chosen, fields: tuple[Fields, Fields], sides: Sequence[int], pixels: Sequence[int]
) -> np.ndarray:
    """The map of a unit over what was seen or heard, of these `sides`, scaled to `pixels`: 1 at its maximum."""
    rows, columns = (
        axis.scaling(count, side, wide)
        for axis, count, side, wide in zip(fields, maps.shape[2:], sides, pixels, strict=True)
    )
    return (scaled(maps[0, unit.unit].float().cpu(), rows, columns) / unit.maximum).numpy()


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    # Half as large as with all colours, and no eye sees a difference.
    image.quantize(HEAT_STEPS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


EXHIBIT = Exhibit(
    title="Heat maps",
    params=Params,
    make=make,
    tables=TABLES,
    metrics=("clips", "units_image", "units_audio", "share_image", "share_audio"),
)
