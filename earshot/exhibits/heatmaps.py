"""Semantic heat maps: where in frames and spectrograms units respond (Arandjelovic & Zisserman 2017, section 3.5).

The units of the last convolution of each tower are ranked by purity: the share of the moments that activate a unit
most, one per source video, with the same annotation. The purest units are displayed, at most two per annotation. A heat
map is the unit's own map after the ReLU, scaled to the frame or the spectrogram. The same is displayed for random
weights: only the difference is due to training.
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
    images_alone,
    load_correspondences,
    middle_moment,
    read_all_annotations,
    takes_audio,
)
from earshot.evaluation.encoders import load_encoders
from earshot.explanation.activations import TopActivations
from earshot.explanation.encoders import NETWORKS, why_no_maps
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
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
MAX_UNITS_PER_CLASS = 2  # units
TIES = 2  # units of equal purity are ranked by this many times as many moments
HEAT_STEPS = 128  # colors of a spectrogram under a map
PROTOCOL = (
    "the units whose top moments, one per source video, most often have the same annotation, at most two per class; "
    "their maps after the ReLU"
)

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
Modalities = Mapping[str, tuple[Fields, Fields]]  # the receptive fields of each, along rows and columns
TABLES = {
    "heatmaps": pa.schema({  # by network, modality, unit (the purest first) and rank
        "network": TEXT,
        "modality": TEXT,  # image or audio
        "unit": INT,
        "rank": INT,
        "annotation": TEXT,  # the most frequent one of the unit's top moments
        "share": REAL,
        **MOMENT,
        "image": BYTES,  # the frame or spectrogram
        "heat": BYTES,  # the same with the unit's heat map over it
        "sound": BYTES,  # one second; empty for the modality image
    })
}  # fmt: skip


class HeatmapExhibitParams(ExhibitParams):
    """The number of units, and of moments for each."""

    split: SplitName
    units: Positive
    examples: Positive


@dataclass(frozen=True)
class SelectedUnit:
    """A unit to display.

    Args:
        annotation, share: the most frequent annotation of its top moments, and the share of moments that have it.
        maximum: its largest activation over all moments.
        clips: those whose moments activate it most, in falling order.
    """

    unit: int
    annotation: str
    share: float
    maximum: float
    clips: list[str]


def make(context: ExhibitContext) -> ExhibitResult:
    """The table heatmaps."""
    if reason := why_no_maps(context.encoder):
        return skipped(reason)
    networks, spec = load_networks(context)
    # why_no_maps has checked the kinds of the networks.
    modalities = {"image": measure_fields(cast(Convolutional, networks[""]).convolve)}
    if takes_audio(context.encoder):
        modalities["audio"] = measure_fields(cast(TwoTowers, networks[""]).audio_tower, channels=1)
    for network in networks.values():
        on_device(network)
    annotations = read_all_annotations(context.annotations)
    names, activations = describe(context, networks, spec, modalities, annotations)
    if not names:
        return skipped(f"no clip of the split {context.params.split} is annotated")
    selected = {
        (prefix, modality): select_units(values, names, annotations, context.params.units, context.params.examples)
        for (prefix, modality), values in activations.items()
    }
    write_table(
        context.folder, TABLES, "heatmaps", draw_all(context, networks, spec, modalities, annotations, selected)
    )
    metrics: dict[str, Any] = {"clips": len(names)}
    for (prefix, modality), units in selected.items():
        metrics[f"{prefix}units_{modality}"] = len(units)
        metrics[f"{prefix}share_{modality}"] = float(np.mean([each.share for each in units])) if units else 0.0
    summary = ", ".join(
        f"{modality} {metrics[f'share_{modality}']:.2f} (random {metrics[f'random_share_{modality}']:.2f})"
        for modality in modalities
    )
    closing = f"share of a unit's top {context.params.examples} moments with the same annotation: {summary}"
    metadata = {"split": context.params.split, "modalities": ", ".join(modalities), "protocol": PROTOCOL}
    return ExhibitResult(metadata | {"network": networks[""].architecture["name"]}, metrics, closing)


def load_networks(context: ExhibitContext) -> tuple[dict[str, ImageEncoder], InputSpec]:
    """The trained and the random network, on the CPU, and their input spec.

    Raises EarshotError if one cannot be read.
    """
    with_audio = takes_audio(context.encoder)
    loaded = load_correspondences(context.encoder) if with_audio else load_encoders(context.encoder)
    networks = {prefix: loaded[prefix].cpu() for prefix in COMPARED}
    if with_audio:
        return networks, InputSpec.by(networks[""])
    return networks, images_alone(networks[""])


def describe(
    context: ExhibitContext,
    networks: Mapping[str, ImageEncoder],
    spec: InputSpec,
    modalities: Modalities,
    annotations: Annotations,
) -> tuple[list[tuple[str, str]], dict[tuple[str, str], np.ndarray]]:
    """Clips and groups of the annotated moments; and the maximum of each unit's map, by network and modality.

    The maxima are float32 (clips, units).
    """
    clips = clips_of_split(context.data_dir, spec, context.params.split)
    names, images, audio = describe_clips(
        context.data_dir,
        (clip for clip in clips if annotations.get(clip.clip_id)),
        spec,
        networks,
        lambda network, images: maps_of("image", network, images).amax((2, 3)),
        (lambda network, audio: maps_of("audio", network, audio).amax((2, 3))) if "audio" in modalities else None,
        "heatmaps",
    )
    activations = {"image": images, "audio": audio}
    return names, {
        (prefix, modality): activations[modality][prefix] for prefix in networks for modality in modalities if names
    }


def maps_of(modality: str, network: Any, inputs: Tensor) -> Tensor:
    """conv5 of images, or conv4_2 of audio, after the ReLU: (n, units, height, width)."""
    return network.convolve(network.normalize(inputs)) if modality == "image" else network.audio_maps(inputs).relu()


def select_units(
    activations: np.ndarray, names: Sequence[tuple[str, str]], annotations: Annotations, units: int, examples: int
) -> list[SelectedUnit]:
    """The purest units first, at most MAX_UNITS_PER_CLASS for each annotation.

    Ties are broken by the purity of TIES times as many moments, then by the number of the unit.

    Args:
        activations: of each unit at each clip's moment, (clips, units).
        names: clip and group of each moment.
        units: the maximum number of units to return.
        examples: the number of top moments that define the purity.
    """
    top = TopActivations(activations.shape[1], TIES * examples)
    groups, keys = hashes([group for _, group in names]), hashes([clip for clip, _ in names])
    top.add(activations, np.arange(len(names)), groups, keys)
    candidates = []
    for unit in range(activations.shape[1]):
        clips = [names[number][0] for number in top.of(unit, TIES * examples)]
        (annotation, share), (_, among_more) = (
            purity([annotations[clip] for clip in clips[:count]], count) for count in (examples, TIES * examples)
        )
        if clips:
            maximum = float(top.maxima[unit])
            candidates.append((share, among_more, SelectedUnit(unit, annotation, share, maximum, clips[:examples])))
    candidates.sort(key=lambda entry: (-entry[0], -entry[1], entry[2].unit))
    selected: list[SelectedUnit] = []
    counts: Counter[str] = Counter()
    for _, _, each in candidates:
        counts[each.annotation] += 1
        if counts[each.annotation] <= MAX_UNITS_PER_CLASS:
            selected.append(each)
    return selected[:units]


@torch.inference_mode()
def draw_all(
    context: ExhibitContext,
    networks: Mapping[str, ImageEncoder],
    spec: InputSpec,
    modalities: Modalities,
    annotations: Annotations,
    selected: Mapping[tuple[str, str], Sequence[SelectedUnit]],
) -> list[dict[str, Any]]:
    """The rows of the table heatmaps; each displayed clip is read once."""
    requested = defaultdict(list)  # by clip: network, modality, number of the unit, rank
    for (prefix, modality), units in selected.items():
        for number, each in enumerate(units):
            for rank, name in enumerate(each.clips):
                requested[name].append((prefix, modality, number, rank))
    rows = {}
    for clip in clips_of_split(context.data_dir, spec, context.params.split, requested):
        moment = Moment(clip, spec, "audio" in modalities)
        for key in requested[clip.clip_id]:
            prefix, modality, number, rank = key
            unit = selected[prefix, modality][number]
            image, heat, sound = moment.draw(modality, networks[prefix], unit, modalities[modality])
            rows[list(selected).index((prefix, modality)), number, rank] = {
                "network": NETWORKS[prefix],
                "modality": modality,
                "unit": unit.unit,
                "rank": rank + 1,
                "annotation": unit.annotation,
                "share": unit.share,
                "clip_id": clip.clip_id,
                "moment": moment.number,
                "group": clip.group,
                "annotations": annotations[clip.clip_id],
                "image": image,
                "heat": heat,
                "sound": sound,
            }
    return [rows[key] for key in sorted(rows)]


class Moment:
    """The moment nearest to the middle of a clip: its frame, its sound, and heat maps over both."""

    def __init__(self, clip: SceneClip, spec: InputSpec, with_audio: bool) -> None:
        self.number, start = middle_moment(clip, spec.seconds)
        self.image = middle_square(read_image(clip.frames[self.number]))
        self.pixels = crop_frames([clip.frames[self.number]], spec.image_size)
        if with_audio:
            self.sound = sound_slice(clip.sound, start, samples=SAMPLES, rate=RATE, channels=1)

    def draw(
        self, modality: str, network: Any, unit: SelectedUnit, fields: tuple[Fields, Fields]
    ) -> tuple[bytes, bytes, bytes]:
        """The frame or the spectrogram, the same under the unit's map scaled by its maximum, and the sound as MP3."""
        device = get_device()
        if modality == "image":
            maps = maps_of(modality, network, self.pixels.to(device))
            heat = _heat(maps, unit, fields, self.pixels.shape[2:], self.image.size[::-1])
            return jpeg_of(self.image), jpeg_of(under_map(self.image, heat)), b""
        sound = torch.from_numpy(self.sound)[None].to(device)
        power = network.spectrogram(sound)[0, 0].cpu().numpy()  # (frequencies, times)
        heat = _heat(maps_of(modality, network, sound), unit, fields, power.shape, power.shape)
        graph = spectrogram_png(power)
        gray = read_image(graph).convert("L").convert("RGB")  # the lightness of the colors rises with the value
        return graph, _png(under_map(gray, heat[::-1])), mp3_of(self.sound, RATE)


def middle_square(image: Image.Image) -> Image.Image:
    """The middle square of a frame, which networks take as input, here of at most LONGEST_SIDE px."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    small = min(side, LONGEST_SIDE)
    return square.resize((small, small), Image.Resampling.LANCZOS)


def _heat(
    maps: Tensor, unit: SelectedUnit, fields: tuple[Fields, Fields], sides: Sequence[int], pixels: Sequence[int]
) -> np.ndarray:
    """The map of a unit over an input of these `sides`, scaled to `pixels` and by the unit's maximum."""
    rows, columns = (
        axis.scaling(count, side, wide)
        for axis, count, side, wide in zip(fields, maps.shape[2:], sides, pixels, strict=True)
    )
    return (scaled(maps[0, unit.unit].float().cpu(), rows, columns) / unit.maximum).numpy()


def _png(image: Image.Image) -> bytes:
    file = BytesIO()
    # Half the size of all colors, with no visible difference.
    image.quantize(HEAT_STEPS, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()


EXHIBIT = Exhibit(
    title="Heat maps",
    params=HeatmapExhibitParams,
    make=make,
    tables=TABLES,
    metrics=("clips", "units_image", "units_audio", "share_image", "share_audio"),
)
