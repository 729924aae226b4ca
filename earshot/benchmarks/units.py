"""Units that prefer a class (Arandjelovic & Zisserman 2017, section 3.5.3).

For every unit of conv4_2 in each tower, the benchmark finds the five clips with the largest activation anywhere in the
image or spectrogram, at one moment of each annotated clip of the split. A unit prefers a class if at least four (or
three) of the five clips have that annotation; a clip counts for each of its annotations. The paper counts the classes
that some unit prefers, of 34; `class_share` is their share. The items of a test are the units: those of two networks
do not correspond, so the test takes them for two independent samples.
"""

from typing import Any

import numpy as np

from earshot.evaluation.benchmark import Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.annotated_moments import ClipParams, describe_moments
from earshot.evaluation.clips.clip_embeddings import annotation_table

PROTOCOL = "conv4_2 units that prefer a class"
TOP = 5
MAJORITIES = (4, 3)  # of the TOP


def evaluate(context: Context[ClipParams]) -> Result:
    """The number and share of classes that units of each tower prefer, and the share of units that prefer one."""
    moments = describe_moments(
        context,
        lambda network, images: network.image_maps(images).amax((2, 3)),
        lambda network, sounds: network.audio_maps(sounds).amax((2, 3)),
        "units",
    )
    if len(moments.clips) < TOP:
        actual = f"{len(moments.clips)} annotated clips in the split {context.params.split}"
        raise NotApplicable(f"{context.data_dir}: {actual}, expected {TOP} or more; give more clips with annotations")
    names, annotated = annotation_table(moments.annotations)
    metrics: dict[str, Any] = {}
    of_units: dict[str, np.ndarray] = {}  # whether each unit prefers a class
    rows = [{"class": name, "clips": int(clips)} for name, clips in zip(names, annotated.sum(0), strict=True)]
    for prefix in moments.images:
        for modality, activations in (("image", moments.images[prefix]), ("audio", moments.sounds[prefix])):
            counts = class_counts(activations, annotated)  # (units, classes)
            for majority in MAJORITIES:
                preferred = counts >= majority
                metrics[f"{prefix}classes{majority}_{modality}"] = int(preferred.any(0).sum())
                metrics[f"{prefix}class_share{majority}_{modality}"] = float(preferred.any(0).mean())
                metrics[f"{prefix}units{majority}_{modality}"] = float(preferred.any(1).mean())
                of_units[f"{prefix}units{majority}_{modality}"] = np.asarray(preferred.any(1))
                for row, units in zip(rows, preferred.sum(0), strict=True):
                    row[f"{prefix}units{majority}_{modality}"] = int(units)
    metrics |= {"classes": len(names), "clips": len(moments.clips), "clips_left_out": moments.left_out}
    summary = [
        f"{modality} {metrics[f'classes4_{modality}']} ({metrics[f'classes3_{modality}']}), random network "
        f"{metrics[f'random_classes4_{modality}']} ({metrics[f'random_classes3_{modality}']})"
        for modality in ("image", "audio")
    ]
    protocol = f"{PROTOCOL}, 4 (3) of the top {TOP} of {len(moments.clips):,} clips"
    scores = f"classes preferred, of {len(names)}: {'; '.join(summary)}"
    return Result(metrics, rows, protocol, scores, moments.clips, item_scores=of_units)


def class_counts(activations: np.ndarray, annotated: np.ndarray) -> np.ndarray:
    """The number of the TOP clips of each unit that are of each class: (units, classes).

    A unit with equal activations in all clips counts none.

    Args:
        activations: the maximum of each unit in each clip, (clips, units).
        annotated: bool (clips, classes).
    """
    top = np.argsort(-activations, axis=0, kind="stable")[:TOP]  # (TOP, units)
    counts = annotated[top].sum(0)
    return np.where((activations.max(0) > activations.min(0))[:, None], counts, 0)


BENCHMARK = Benchmark(
    params=ClipParams,
    evaluate=evaluate,
    title="Units that prefer a class",
    scores=r"(?:classes|units)\d",
    leading="units4_image",
    columns={
        f"{what}{majority}_{modality}": f"{what}, {majority} of {TOP}, {words}"
        for what in ("classes", "units")
        for majority in MAJORITIES
        for modality, words in (("image", "images"), ("audio", "audio"))
    },
    brief="Units, 4 of 5 images",
)
