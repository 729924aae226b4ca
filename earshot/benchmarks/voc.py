"""PASCAL VOC2007 classification with linear SVMs on the layers of an encoder (Owens 2016, section 4.2).

Resize, center crop, one-vs-rest SVMs; one C for all classes by mean average precision on val, a refit on train + val,
11-point average precision on test, difficult objects ignored. Other probes take the place of the SVMs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from earshot.evaluation.benchmark import Benchmark, Context, Result, beside_random
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.images.image_features import ProbeParams, color_features, layer_features
from earshot.evaluation.images.voc_lists import SPLITS, read_dataset
from earshot.evaluation.metrics import (
    average_precisions,
    has_all_classes,
    mean_average_precision,
    resampled_map,
)
from earshot.evaluation.probing import PROBES, in_words, scored_as, selected_as, validated_probe
from earshot.evaluation.significance import resampled_counts

PROTOCOL = "VOC2007 {}, 11-point mAP"


def evaluate(context: Context[ProbeParams]) -> Result:
    """The scores of every layer and probe of the trained network, its controls and colors, and of constant scores."""
    encoders = load_encoders(context.encoder)
    classes, splits = read_dataset(context.data_dir)
    files = [file for split in SPLITS for file in splits[split][0]]
    labels = [splits[split][1] for split in SPLITS]
    resize = context.params.resize
    counts = resampled_counts(len(labels[2]), lambda drawn: has_all_classes(labels[2], drawn))
    metrics: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in classes]

    def probe(features: Tensor, name: str, plain: str) -> dict[str, float]:
        """Score the features by every probe; return the value that each selected."""
        values = {}
        for kind in context.params.probes:
            metric = scored_as(plain, kind)
            values[kind], scores = probe_splits(kind, features, labels, scored_as(name, kind))
            precisions = average_precisions(scores, labels[2])
            metrics[metric] = float(precisions.mean())
            drawn[metric] = resampled_map(scores, labels[2], counts)
            for row, precision in zip(rows, precisions, strict=True):
                row[metric.replace("map", "ap", 1)] = float(precision)
        return values

    for prefix, encoder in encoders.items():
        features = layer_features(encoder, files, context.params.layers, resize, f"voc {prefix or 'encoder'}")
        for layer in context.params.layers:
            values = probe(features.pop(layer), f"voc {prefix}{layer}", f"{prefix}map_{layer}")
            if not prefix:
                metrics |= {f"{selected_as(kind)}_{layer}": value for kind, value in values.items()}
    probe(color_features(files, resize, encoders[""].image_size), "voc colors", "color_histogram_map")
    metrics["chance"] = mean_average_precision(np.zeros_like(labels[2]), labels[2])
    drawn["chance"] = resampled_map(np.zeros_like(labels[2]), labels[2], counts)
    items = [file.stem for file in splits["test"][0]]
    probes = context.params.probes
    columns = [scored_as(layer, kind) for kind in probes for layer in context.params.layers]
    scored = beside_random(metrics, "map", columns)
    return Result(metrics, rows, PROTOCOL.format(in_words(probes)), scored, items, drawn=drawn)


def probe_splits(kind: str, features: Tensor, labels: Sequence[np.ndarray], name: str) -> tuple[float, np.ndarray]:
    """The selected value and the scores of the test rows, (rows, classes), from the rows of train, val and test."""
    parts = torch.split(features, [len(part) for part in labels])
    train, val = ((rows, torch.from_numpy(part)) for rows, part in zip(parts[:2], labels[:2], strict=True))
    result = validated_probe(PROBES[kind], train, val, parts[2], mean_average_precision, name=name)
    return result.value, result.scores


BENCHMARK = Benchmark(
    params=ProbeParams,
    evaluate=evaluate,
    title="VOC2007",
    scores="map",
    leading="map_pool5",
    metric="mAP",
    alike={"color histogram": "color_histogram_"},
    class_score="ap",
    at_a_glance=True,
    on_console=True,
)
