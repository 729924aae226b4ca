"""PASCAL VOC2007 classification with linear SVMs on the layers of an encoder (Owens 2016, section 4.2).

Resize, centre crop, one-vs-rest SVMs; one C for all classes by mean average precision on val, a refit on train + val,
11-point average precision on test, difficult objects ignored.
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
from earshot.evaluation.linear import validated_probe
from earshot.evaluation.metrics import average_precisions, mean_average_precision

PROTOCOL = "VOC2007 linear SVM, 11-point mAP"


def evaluate(context: Context[ProbeParams]) -> Result:
    """The scores of every layer of the trained network and its controls, of colours, and of constant scores."""
    encoders = load_encoders(context.encoder)
    classes, splits = read_dataset(context.data_dir)
    files = [file for split in SPLITS for file in splits[split][0]]
    labels = [splits[split][1] for split in SPLITS]
    resize = context.params.resize
    metrics: dict[str, Any] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in classes]

    def probe(features: Tensor, name: str, metric: str) -> float:
        cost, precisions = probe_splits(features, labels, name)
        metrics[metric] = float(precisions.mean())
        for row, precision in zip(rows, precisions, strict=True):
            row[metric.replace("map", "ap", 1)] = float(precision)
        return cost

    for prefix, encoder in encoders.items():
        features = layer_features(encoder, files, context.params.layers, resize, f"voc {prefix or 'encoder'}")
        for layer in context.params.layers:
            cost = probe(features.pop(layer), f"voc {prefix}{layer}", f"{prefix}map_{layer}")
            if not prefix:
                metrics[f"C_{layer}"] = cost
    probe(color_features(files, resize, encoders[""].image_size), "voc colours", "color_histogram_map")
    metrics["chance"] = mean_average_precision(np.zeros_like(labels[2]), labels[2])
    asked = [file.stem for file in splits["test"][0]]
    return Result(metrics, rows, PROTOCOL, beside_random(metrics, "map", context.params.layers), asked)


def probe_splits(features: Tensor, labels: Sequence[np.ndarray], name: str) -> tuple[float, np.ndarray]:
    """The C chosen and the average precision of each class on the test rows, of the rows of train, val and test."""
    parts = torch.split(features, [len(part) for part in labels])
    train, val = ((rows, torch.from_numpy(part)) for rows, part in zip(parts[:2], labels[:2], strict=True))
    probe = validated_probe(train, val, parts[2], mean_average_precision, name=name)
    return probe.cost, average_precisions(probe.scores, labels[2])


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
