"""Units: the frames that activate each unit of a layer most, and the objects that it is selective for.

From the frames of the test split, the `top` that activate a unit most, one a source video. Owens (2016, section 4.1)
asked human annotators whether 60 % of the top 60 of 200,000 show one object. Here nobody is asked: what a clip is
annotated with, its frames count as showing, and a unit is selective where that share, its purity, reaches the
threshold. The same is told of annotated pictures, which are seen whole, and there the boxes tell how well a unit
covers a class. Of few frames the top ones would be all there are: at most a fifth of the
source videos, or of the pictures, are judged.

What random weights and the wrong sound give stands beside every count: of few classes, or of frequent ones, some units
seem selective by chance.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from earshot.core.params import Names, Positive, Share
from earshot.evaluation.clips.clip_embeddings import read_all_annotations
from earshot.evaluation.encoders import load_encoders
from earshot.explanation.activations import TopActivations
from earshot.explanation.encoders import NETWORKS, why_no_maps
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
from earshot.explanation.frames import FramePool
from earshot.explanation.galleries import draw_squares, gallery
from earshot.explanation.layers import Layer
from earshot.explanation.network_dissection import read_annotated
from earshot.explanation.receptive_fields import Fields, measure_fields
from earshot.explanation.selectivity import (
    JudgedUnits,
    clips_of_frames,
    count_judged,
    count_pool,
    judge_frames,
    judge_images,
    strongest_frames,
)
from earshot.explanation.tables import BYTES, FLAG, INT, NUMBERS, REAL, TEXT, TEXTS, write_table
from earshot.networks.device import get_device, on_device, used_precision
from earshot.params.explain import ExhibitParams

SWEEP = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # thresholds of purity (Owens 2016, Figure A1)
DRAWN = ("", "random_")  # networks with galleries, by the prefix of their metrics
COUNTS = (
    "selective",
    "selective_share",
    "selective_classes",
    "audible",
    "audible_share",
)  # of units, by frames or boxes
PROTOCOL = (
    "purity: share of a unit's strongest frames, one a source video and at most a fifth of them, whose clips are "
    "annotated so; boxed purity: the same of annotated pictures; IoU: of what lies above the unit's top 1 % with the "
    "boxes of a class, which stand for masks"
)
TABLES = {
    "units": pa.schema({  # a row a network and unit
        "network": TEXT,
        "unit": INT,
        "maximum": REAL,  # over all frames; 0 of a unit that never responds and has no gallery
        "annotation": TEXT,  # what most of its top frames show
        "purity": REAL,  # their share
        "boxed": TEXT,  # the same among the annotated pictures of the tree
        "boxed_purity": REAL,
        "iou_class": TEXT,  # whose boxes the unit covers best (NetDissect)
        "iou": REAL,  # NaN where there are no boxes
        "selective": FLAG,  # the purity reaches the threshold
        "audible": FLAG,  # what it is selective for, by frames or else by pictures, makes sound
        "gallery": BYTES,  # JPEG: the top frames side by side, squares, dimmed but for the receptive fields
        "clips": TEXTS,  # of the frames in the gallery
        "activations": NUMBERS,
    }),
    "unit_sweep": pa.schema({"network": TEXT, "threshold": REAL, "units": INT, "share": REAL, "boxed_units": INT}),
    "unit_classes": pa.schema({  # how many units of a network are selective for a class
        "network": TEXT,
        "class": TEXT,
        "audible": FLAG,
        "units": INT,  # by purity
        "boxed_units": INT,  # by that among the annotated pictures
        "iou_units": INT,  # by boxes
    }),
}  # fmt: skip


class Params(ExhibitParams):
    """Which layer, and what counts as selective."""

    layer: str
    frames: Positive
    top: Positive
    gallery: Positive
    selective: Share
    iou: Share
    audible_classes: Names


def make(context: Context) -> ExhibitResult:
    """The tables units, unit_sweep and unit_classes."""
    if reason := why_no_maps(context.encoder):
        return skipped(reason)
    params = context.params
    layers, fields = load_layers(context)
    pool, images = FramePool(context.scenes, params.frames), read_annotated(context.data_dir)
    said = read_all_annotations(context.annotations)
    counted = count_pool(pool, said)
    judged, boxed_judged = (count_judged(params.top, size) for size in (counted.groups, len(images.files)))
    strongest = strongest_frames(layers, pool, max(judged, params.gallery))
    clips = clips_of_frames(pool, strongest.values())
    boxed = judge_images(layers, images, fields, boxed_judged)
    told = {
        prefix: JudgedUnits(each.maxima, judge_frames(each, judged, clips, said), *boxed[prefix])
        for prefix, each in strongest.items()
    }
    drawn = {prefix: layers[prefix] for prefix in DRAWN}
    squares = draw_squares(drawn, pool, strongest, fields, params.gallery, context.scratch / "galleries")
    audible = {name.casefold() for name in params.audible_classes or {each for names in said.values() for each in names}}
    rows = (
        row
        for prefix, each in told.items()
        for row in unit_rows(prefix, each, strongest[prefix], clips, squares.get(prefix), params, audible)
    )
    write_table(context.folder, TABLES, "units", rows)
    write_table(
        context.folder, TABLES, "unit_sweep", (row for prefix, each in told.items() for row in sweep(prefix, each))
    )
    write_table(context.folder, TABLES, "unit_classes", class_rows(told, params, images.classes, audible))
    metrics = {f"{p}{name}": n for p, each in told.items() for name, n in count_units(each, params, audible).items()}
    metrics |= {
        "frames": len(pool),
        "groups": counted.groups,
        "judged": judged,
        "most_frequent": max(counted.shares.values(), default=0.0),
        "images": len(images.files),
        "boxed_judged": boxed_judged,
        "boxed_most_frequent": float(images.shown.mean(0).max()),
    }
    metadata = tell_layer(layers[""], fields) | {"selective_from": params.selective, "iou_above": params.iou}
    return ExhibitResult(metadata | {"protocol": PROTOCOL}, metrics, closing_line(metrics, params.layer))


def load_layers(context: Context) -> tuple[dict[str, Layer], tuple[Fields, Fields]]:
    """The layer that is asked for of every network, by their prefixes, and what its positions see.

    Raises EarshotError where a network cannot be read or has no such layer.
    """
    networks = load_encoders(context.encoder)
    layers = {prefix: Layer(network, context.params.layer) for prefix, network in networks.items()}
    fields = measure_fields(layers[""].of)
    for network in networks.values():
        on_device(network)
    return layers, fields


def count_units(told: JudgedUnits, params: Any, audible: set[str]) -> dict[str, Any]:
    """The counts of one network."""
    metrics: dict[str, Any] = {"units": len(told.maxima), "silent": int((told.maxima == 0).sum())}
    for kind, purities in (("", told.shown), ("boxed_", told.boxed)):
        names = [name for name, share in purities if share >= params.selective]
        metrics[f"{kind}selective"] = len(names)
        metrics[f"{kind}selective_share"] = len(names) / len(purities)
        metrics[f"{kind}selective_classes"] = len(set(names))
        heard = sum(name.casefold() in audible for name in names)
        metrics[f"{kind}audible"] = heard
        if names:
            metrics[f"{kind}audible_share"] = heard / len(names)
    detected = [name for name, iou in told.covered if iou > params.iou]
    if not np.isnan(told.covered[0][1]):
        metrics |= {"detectors": len(detected), "detector_classes": len(set(detected))}
    return metrics


def unit_rows(
    prefix: str,
    told: JudgedUnits,
    strongest: TopActivations,
    clips: Mapping[int, str],
    squares: np.ndarray | None,
    params: Any,
    audible: set[str],
) -> Iterator[dict[str, Any]]:
    """The rows of the table units of one network."""
    for unit, ((annotation, share), (boxed, boxed_share), (iou_class, iou)) in enumerate(
        zip(told.shown, told.boxed, told.covered, strict=True)
    ):
        frames = strongest.of(unit, params.gallery)
        selective, boxed_selective = share >= params.selective, boxed_share >= params.selective
        thing = annotation if selective else boxed if boxed_selective else ""
        yield {
            "network": NETWORKS[prefix],
            "unit": unit,
            "maximum": float(told.maxima[unit]),
            "annotation": annotation,
            "purity": share,
            "boxed": boxed,
            "boxed_purity": boxed_share,
            "iou_class": iou_class,
            "iou": iou,
            "selective": selective,
            "audible": thing.casefold() in audible,
            "gallery": b"" if squares is None else gallery(squares[unit, : len(frames)]),
            "clips": [clips[number] for number in frames],
            "activations": strongest.values[unit, : len(frames)].tolist(),
        }


def sweep(prefix: str, told: JudgedUnits) -> Iterator[dict[str, Any]]:
    """How many units are selective at each threshold (Owens 2016, Figure A1)."""
    for threshold in SWEEP:
        units, boxed_units = (sum(share >= threshold for _, share in purities) for purities in (told.shown, told.boxed))
        yield {
            "network": NETWORKS[prefix],
            "threshold": threshold,
            "units": units,
            "share": units / len(told.maxima),
            "boxed_units": boxed_units,
        }


def class_rows(
    told: Mapping[str, JudgedUnits], params: Any, classes: Sequence[str], audible: set[str]
) -> Iterator[dict[str, Any]]:
    """How many units are for each class, of the data_dir or with any unit (Owens 2016, Figure 3)."""
    counts = {
        prefix: [
            Counter(name for name, share in each.shown if share >= params.selective),
            Counter(name for name, share in each.boxed if share >= params.selective),
            Counter(name for name, iou in each.covered if iou > params.iou),
        ]
        for prefix, each in told.items()
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


def tell_layer(layer: Layer, fields: tuple[Fields, Fields]) -> dict[str, Any]:
    """The layer and what its units see, in px of a picture."""
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
    """What is told in one line."""
    frames, images = (
        f"{metrics[f'{kind}selective']} (random network {metrics[f'random_{kind}selective']})"
        for kind in ("", "boxed_")
    )
    told = (
        f"of {metrics['units']} units of {layer} are selective, by {metrics['judged']} of {metrics['frames']:,} frames"
    )
    return f"{told} {frames}, by {metrics['boxed_judged']} of {metrics['images']:,} pictures {images}"


EXHIBIT = Exhibit(
    title="Units",
    params=Params,
    make=make,
    tables=TABLES,
    metrics=(
        "units",
        "silent",
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
