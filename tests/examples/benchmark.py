"""Nearest means: as earshot/benchmarks/nearest.py it runs if params.yaml has a group `evaluate.nearest`.

VOC2007 classification without training: an image's score for a class is the negative distance of its features from the
mean of the class's training images.
"""

import numpy as np

from earshot.evaluation.benchmark import Benchmark, Context, Result, beside_random
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.images.image_features import LayerParams, layer_features
from earshot.evaluation.images.voc_lists import read_dataset
from earshot.evaluation.metrics import average_precisions, mean_average_precision


def evaluate(context: Context[LayerParams]) -> Result:
    classes, splits = read_dataset(context.data_dir)
    (known, labels), (files, truth) = splits["train"], splits["test"]
    metrics, rows, p = {}, [{"class": name} for name in classes], context.params
    for prefix, encoder in load_encoders(context.encoder).items():
        features = layer_features(encoder, [*known, *files], p.layers, p.resize, f"nearest {prefix or 'encoder'}")
        for layer, both in features.items():
            train, test = np.split(both.numpy(), [len(known)])  # (images, dimensions)
            means = np.stack([train[of_class == 1].mean(0) for of_class in labels.T])
            scores = -np.linalg.norm(test[:, None] - means, axis=2)  # (images, classes)
            precisions = average_precisions(scores, truth)
            metrics[f"{prefix}map_{layer}"] = float(precisions.mean())
            for row, precision in zip(rows, precisions, strict=True):
                row[f"{prefix}ap_{layer}"] = float(precision)
    metrics["chance"] = mean_average_precision(np.zeros_like(truth), truth)
    names = [file.stem for file in files]
    return Result(metrics, rows, "VOC2007 nearest mean, mAP", beside_random(metrics, "map", p.layers), names)


BENCHMARK = Benchmark(params=LayerParams, evaluate=evaluate, title="Nearest means", scores="map", metric="mAP")
