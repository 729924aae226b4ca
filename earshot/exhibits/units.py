"""Units: the frames that activate each unit of a layer most, and the classes that it is selective for.

The top frames of a unit are the `top` frames of the test split that activate it most (`rank_by`), one per source
video. In Owens (2016, section 4.1), human annotators decide whether at least 60 % of a unit's top 60 frames (of
200,000) show one object. Here a frame counts as showing the annotations of its clip. The purity of a unit is the
largest share of top frames with the same annotation; the unit is selective if its purity reaches the threshold. The
same is measured on whole annotated images, where boxes also measure how well a unit covers a class (IoU). They are the
test images of VOC2007, or any folder of images whose inner folders name the classes (section A2: SUN and ImageNet). At
most a fifth of the source videos, or of the images, count as top: with few frames, all of them would be.

Images show what is visible and the corpus is annotated with what is audible, so their agreement measures row 3 of Table
1: the share of clips, among a unit's top 30, that sound like the class that its top images show, for the classes in
`audible_classes`. Row 4 counts only activations by that object; no annotation says so of a frame, and it is left out.

Every count is also measured with random weights and with the wrong sound: if classes are few or frequent, some units
seem selective by chance.

With `ascent_steps`, each unit that has a gallery also has an image that gradient ascent finds (Mahadev 2020, published
code), in networks of all three kinds. What ascends is the activation that ranks the gallery.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from earshot.core.params import Count, Names, Positive, Share
from earshot.evaluation.clips.clip_embeddings import read_all_annotations
from earshot.evaluation.encoders import load_encoders
from earshot.explanation.activations import TopActivations
from earshot.explanation.ascent import ascend
from earshot.explanation.encoders import NETWORKS, why_no_maps
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
from earshot.explanation.frames import FramePool
from earshot.explanation.galleries import draw_squares, frames_again, gallery, images_again
from earshot.explanation.layers import Layer
from earshot.explanation.media import png_of
from earshot.explanation.network_dissection import AnnotatedImages, read_annotated
from earshot.explanation.receptive_fields import Fields, measure_fields
from earshot.explanation.selectivity import (
    Rank,
    UnitResponses,
    UnitSelectivity,
    clips_of_frames,
    count_evaluated,
    count_pool,
    cover_boxes,
    look_at_frames,
    look_at_images,
    score_frames,
    score_images,
    share_audible,
)
from earshot.explanation.tables import BYTES, FLAG, INT, NUMBERS, REAL, TEXT, TEXTS, write_table
from earshot.networks.device import get_device, on_device, used_precision
from earshot.params.explain import ExhibitParams

SWEEP = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # thresholds of purity (Owens 2016, Figure A1)
AUDIBLE_TOP = 30  # clips of a unit whose sound counts (Owens 2016, section 4.1)
POSITION_SHARE = 0.5  # of the variance of a unit's activations, at or above which it is selective for position (ours)
COUNTS = (
    "selective",
    "selective_share",
    "selective_classes",
    "audible",
    "audible_share",
)  # of units, by frames or boxes
PROTOCOL = (
    "top frames by the {} activation; purity: share of a unit's top frames (one per source video, at most a fifth of "
    "them) whose clips have the annotation; boxed purity: the same for annotated images; IoU: of the positions above "
    "the unit's top 1 % with the boxes of a class, which stand in for masks; selective for position: position explains "
    "half of the variance"
)
TABLES = {
    "units": pa.schema({  # one row per network and unit
        "network": TEXT,
        "unit": INT,
        "maximum": REAL,  # over all frames; 0 for a unit that never responds, which has no gallery
        "position": REAL,  # share of the variance of its activations to frames that the position explains
        "annotation": TEXT,  # the most frequent one of its top frames
        "purity": REAL,  # the share of top frames that have it
        "boxed": TEXT,  # the same for the annotated images of data_dir
        "boxed_purity": REAL,
        "iou_class": TEXT,  # the class whose boxes the unit covers best (NetDissect)
        "iou": REAL,  # NaN without boxes
        "selective": FLAG,  # the purity reaches the threshold
        "audible": FLAG,  # the class it is selective for, by frames or else by images, makes sound
        "gallery": BYTES,  # JPEG: the top frames or images as squares side by side, dimmed outside the receptive fields
        "clips": TEXTS,  # of the frames in the gallery, or the names of the images
        "activations": NUMBERS,  # by which they are ranked
    }),
    "unit_sweep": pa.schema({"network": TEXT, "threshold": REAL, "units": INT, "share": REAL, "boxed_units": INT}),
    "unit_classes": pa.schema({  # number of units of a network selective for a class
        "network": TEXT,
        "class": TEXT,
        "audible": FLAG,
        "units": INT,  # by purity of frames
        "boxed_units": INT,  # by purity of annotated images
        "iou_units": INT,  # by boxes
    }),
    "unit_ascent": pa.schema({  # one row per network and unit with a gallery; only with ascent_steps
        "network": TEXT,
        "unit": INT,
        "image": BYTES,  # PNG that gradient ascent found; of one color if no change of an image activates the unit
        "start": REAL,  # the unit's activation by the first image, faint noise
        "end": REAL,  # by the image; 0, or less before a ReLU, if the unit does not respond
        "highest": REAL,  # by the first image of its gallery
    }),
}  # fmt: skip


class UnitExhibitParams(ExhibitParams):
    """The layer, and the thresholds for selective units."""

    layer: str
    rank_by: Rank
    galleries: Literal["frames", "images"]
    frames: Positive
    top: Positive
    gallery: Positive
    selective: Share
    iou: Share
    audible_classes: Names
    ascent_steps: Count


@dataclass(frozen=True)
class MeasuredUnits:
    """What was measured for the units of the three networks, by the networks' prefixes.

    Args:
        frame_responses, image_responses: to the frames, and to the annotated images.
        selectivity: for classes and for positions.
        audible_shares: of clips that sound like the class that their unit's top images show; None if no unit has one.
        counts: of frames, groups and images, and how many of them count as top; the same for all networks.
        clips: the clip of each top frame, by the frame's number.
    """

    frame_responses: Mapping[str, UnitResponses]
    image_responses: Mapping[str, UnitResponses]
    selectivity: Mapping[str, UnitSelectivity]
    audible_shares: Mapping[str, float | None]
    counts: Mapping[str, Any]
    clips: Mapping[int, str]


def make(context: ExhibitContext) -> ExhibitResult:
    """The tables units, unit_sweep and unit_classes, and with `ascent_steps` the table unit_ascent."""
    if reason := why_no_maps(context.encoder):
        return skipped(reason)
    params = context.params
    audible = {name.casefold() for name in params.audible_classes}
    layers, fields = load_layers(context)
    pool, images = FramePool(context.scenes, params.frames), read_annotated(context.data_dir)
    measured = measure(context, layers, fields, pool, images, audible)
    if params.galleries == "frames":
        displayed, names, again = measured.frame_responses, measured.clips, partial(frames_again, layers, pool)
    else:
        displayed, names = measured.image_responses, names_of(images)
        again = partial(images_again, layers, images)
    squares = draw_squares(again, displayed, layers, fields, params.gallery, context.scratch / "galleries")
    write_tables(context, measured.selectivity, displayed, names, squares, images.classes, audible)
    if params.ascent_steps:
        write_table(context.folder, TABLES, "unit_ascent", ascent_rows(layers, displayed, params, context.seed))
    metrics = metrics_of(measured, params, audible)
    return ExhibitResult(metadata_of(layers[""], fields, params), metrics, closing_line(metrics, params.layer))


def measure(
    context: ExhibitContext,
    layers: Mapping[str, Layer],
    fields: tuple[Fields, Fields],
    pool: FramePool,
    images: AnnotatedImages,
    audible: set[str],
) -> MeasuredUnits:
    """Compute the responses of all units to the frames and the images, and for which classes they are selective."""
    params, annotations = context.params, read_all_annotations(context.annotations)
    counted = count_pool(pool, annotations)
    evaluated, boxed_evaluated = (count_evaluated(params.top, size) for size in (counted.groups, len(images.files)))
    frame_responses = look_at_frames(layers, pool, max(evaluated, params.gallery), params.rank_by)
    clips = clips_of_frames(pool, (each.top for each in frame_responses.values()))
    image_responses, thresholds = look_at_images(layers, images, max(boxed_evaluated, params.gallery), params.rank_by)
    covered = cover_boxes(layers, images, fields, thresholds) if images.boxed else {}
    selectivity, shares = {}, {}
    for prefix, each in frame_responses.items():
        selectivity[prefix] = UnitSelectivity(
            each.maxima,
            each.positions.share,
            score_frames(each.top, evaluated, clips, annotations),
            score_images(image_responses[prefix].top, images, boxed_evaluated),
            covered.get(prefix, [("", np.nan)] * len(each.maxima)),
        )
        classes = audible_objects(selectivity[prefix], params.selective, audible)
        shares[prefix] = share_audible(each.top, classes, min(AUDIBLE_TOP, evaluated), clips, annotations)
    counts = {
        "frames": len(pool),
        "groups": counted.groups,
        "judged": evaluated,
        "most_frequent": max(counted.shares.values(), default=0.0),
        "images": len(images.files),
        "boxed_judged": boxed_evaluated,
        "boxed_most_frequent": images.most_frequent,
    }
    return MeasuredUnits(frame_responses, image_responses, selectivity, shares, counts, clips)


def write_tables(
    context: ExhibitContext,
    selectivity: Mapping[str, UnitSelectivity],
    displayed: Mapping[str, UnitResponses],
    names: Mapping[int, str],
    squares: Mapping[str, np.ndarray],
    classes: Sequence[str],
    audible: set[str],
) -> None:
    """Write the tables units, unit_sweep and unit_classes; `names` are of the frames, or images, of galleries."""
    params = context.params
    rows = (
        row
        for prefix, each in selectivity.items()
        for row in unit_rows(prefix, each, displayed[prefix].top, names, squares.get(prefix), params, audible)
    )
    sweeps = (row for prefix, each in selectivity.items() for row in sweep(prefix, each))
    write_table(context.folder, TABLES, "units", rows)
    write_table(context.folder, TABLES, "unit_sweep", sweeps)
    write_table(context.folder, TABLES, "unit_classes", class_rows(selectivity, params, classes, audible))


def metrics_of(measured: MeasuredUnits, params: Any, audible: set[str]) -> dict[str, Any]:
    """The counts of every network, with its prefix, and those of what it was measured on."""
    metrics: dict[str, Any] = {}
    for prefix, each in measured.selectivity.items():
        metrics |= {f"{prefix}{name}": number for name, number in count_units(each, params, audible).items()}
    for prefix, share in measured.audible_shares.items():
        metrics |= {} if share is None else {f"{prefix}audible_videos": share}
    return metrics | dict(measured.counts)


def metadata_of(layer: Layer, fields: tuple[Fields, Fields], params: Any) -> dict[str, Any]:
    """The layer, the thresholds and the protocol, for the page."""
    metadata = layer_metadata(layer, fields) | {"selective_from": params.selective, "iou_above": params.iou}
    metadata |= {"displayed": params.galleries, "protocol": PROTOCOL.format(params.rank_by)}
    return metadata | ({"ascent_steps": params.ascent_steps} if params.ascent_steps else {})


def load_layers(context: ExhibitContext) -> tuple[dict[str, Layer], tuple[Fields, Fields]]:
    """The requested layer of every network, by the networks' prefixes, and its receptive fields.

    Raises EarshotError if a network cannot be read or has no such layer.
    """
    networks = load_encoders(context.encoder)
    layers = {prefix: Layer(network, context.params.layer) for prefix, network in networks.items()}
    fields = measure_fields(layers[""].of)
    for network in networks.values():
        on_device(network)
    return layers, fields


def audible_objects(selectivity: UnitSelectivity, selective: float, audible: set[str]) -> list[str]:
    """The class of each unit that is selective, by images, for a class that makes sound; "" for other units."""
    return [name if name.casefold() in audible and share >= selective else "" for name, share in selectivity.by_images]


def names_of(images: AnnotatedImages) -> dict[int, str]:
    """The names of the images below their folder, by number."""
    return {number: str(file.relative_to(images.root)) for number, file in enumerate(images.files)}


def count_units(selectivity: UnitSelectivity, params: Any, audible: set[str]) -> dict[str, Any]:
    """The counts of one network."""
    metrics: dict[str, Any] = {"units": len(selectivity.maxima), "silent": int((selectivity.maxima == 0).sum())}
    metrics["position_selective"] = int((selectivity.positions >= POSITION_SHARE).sum())
    metrics["position_share"] = float(selectivity.positions.mean())
    for kind, purities in (("", selectivity.by_frames), ("boxed_", selectivity.by_images)):
        names = [name for name, share in purities if share >= params.selective]
        metrics[f"{kind}selective"] = len(names)
        metrics[f"{kind}selective_share"] = len(names) / len(purities)
        metrics[f"{kind}selective_classes"] = len(set(names))
        if audible:  # of a corpus whose classes all make sound, nothing is counted: the share would be 1
            audible_count = sum(name.casefold() in audible for name in names)
            metrics[f"{kind}audible"] = audible_count
            if names:
                metrics[f"{kind}audible_share"] = audible_count / len(names)
    detected = [name for name, iou in selectivity.by_boxes if iou > params.iou]
    if not np.isnan(selectivity.by_boxes[0][1]):
        metrics |= {"detectors": len(detected), "detector_classes": len(set(detected))}
    return metrics


def unit_rows(
    prefix: str,
    selectivity: UnitSelectivity,
    displayed: TopActivations,
    names: Mapping[int, str],
    squares: np.ndarray | None,
    params: Any,
    audible: set[str],
) -> Iterator[dict[str, Any]]:
    """The rows of the table units of one network; `displayed` and `names` are the frames, or images, of galleries."""
    for unit, ((annotation, share), (boxed, boxed_share), (iou_class, iou)) in enumerate(
        zip(selectivity.by_frames, selectivity.by_images, selectivity.by_boxes, strict=True)
    ):
        frames = displayed.of(unit, params.gallery)
        selective, boxed_selective = share >= params.selective, boxed_share >= params.selective
        preferred = annotation if selective else boxed if boxed_selective else ""
        yield {
            "network": NETWORKS[prefix],
            "unit": unit,
            "maximum": float(selectivity.maxima[unit]),
            "position": float(selectivity.positions[unit]),
            "annotation": annotation,
            "purity": share,
            "boxed": boxed,
            "boxed_purity": boxed_share,
            "iou_class": iou_class,
            "iou": iou,
            "selective": selective,
            "audible": preferred.casefold() in audible,
            "gallery": b"" if squares is None else gallery(squares[unit, : len(frames)]),
            "clips": [names[number] for number in frames],
            "activations": displayed.values[unit, : len(frames)].tolist(),
        }


def ascent_rows(
    layers: Mapping[str, Layer], displayed: Mapping[str, UnitResponses], params: Any, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of the table unit_ascent; `displayed` are the responses to the frames, or images, of galleries."""
    for prefix, layer in layers.items():
        highest = displayed[prefix].top.values[:, 0]
        units = np.flatnonzero(highest > 0).tolist()
        for unit, result in zip(units, ascend(layer, units, params.rank_by, params.ascent_steps, seed), strict=True):
            yield {
                "network": NETWORKS[prefix],
                "unit": unit,
                "image": png_of(Image.fromarray(result.image.permute(1, 2, 0).numpy())),
                "start": result.start,
                "end": result.end,
                "highest": float(highest[unit]),
            }


def sweep(prefix: str, selectivity: UnitSelectivity) -> Iterator[dict[str, Any]]:
    """The number of selective units at each threshold (Owens 2016, Figure A1)."""
    for threshold in SWEEP:
        units, boxed_units = (
            sum(share >= threshold for _, share in purities)
            for purities in (selectivity.by_frames, selectivity.by_images)
        )
        yield {
            "network": NETWORKS[prefix],
            "threshold": threshold,
            "units": units,
            "share": units / len(selectivity.maxima),
            "boxed_units": boxed_units,
        }


def class_rows(
    selectivity: Mapping[str, UnitSelectivity], params: Any, classes: Sequence[str], audible: set[str]
) -> Iterator[dict[str, Any]]:
    """The number of units for each class of data_dir or of any unit (Owens 2016, Figure 3)."""
    counts = {
        prefix: [
            Counter(name for name, share in each.by_frames if share >= params.selective),
            Counter(name for name, share in each.by_images if share >= params.selective),
            Counter(name for name, iou in each.by_boxes if iou > params.iou),
        ]
        for prefix, each in selectivity.items()
    }
    listed = sorted({*classes, *(name for each in counts.values() for kind in each for name in kind)})
    for prefix, kinds in counts.items():
        for name in listed:
            units, boxed_units, iou_units = (kind[name] for kind in kinds)
            yield {
                "network": NETWORKS[prefix],
                "class": name,
                "audible": name.casefold() in audible,
                "units": units,
                "boxed_units": boxed_units,
                "iou_units": iou_units,
            }


def layer_metadata(layer: Layer, fields: tuple[Fields, Fields]) -> dict[str, Any]:
    """The layer and its receptive fields, in px of an image."""
    side, rows = layer.network.image_size, fields[0]
    metadata = {
        "network": layer.network.architecture["name"],
        "layer": layer.name,
        "precision": used_precision("auto", get_device()),
        "image_size": side,
        "receptive_field": rows.size or side,
        "circle": round(min(rows.actual, side)),
    }
    return metadata | ({"stride": rows.stride} if rows.size else {})


def closing_line(metrics: Mapping[str, Any], layer: str) -> str:
    """The main counts in one line."""
    frames, images = (
        f"{metrics[f'{kind}selective']} (random network {metrics[f'random_{kind}selective']})"
        for kind in ("", "boxed_")
    )
    text = (
        f"selective among {metrics['units']} units of {layer}: by {metrics['judged']} of {metrics['frames']:,} frames"
    )
    return f"{text} {frames}, by {metrics['boxed_judged']} of {metrics['images']:,} images {images}"


EXHIBIT = Exhibit(
    title="Units",
    params=UnitExhibitParams,
    make=make,
    tables=TABLES,
    metrics=(
        "units",
        "silent",
        "position_selective",
        "position_share",
        "audible_videos",
        *(f"{kind}{name}" for kind in ("", "boxed_") for name in COUNTS),
        "detectors",
        "detector_classes",
        "frames",
        "groups",
        "judged",
        "most_frequent",
        "images",
        "boxed_judged",
        "boxed_most_frequent",
    ),
)
