"""Nearest neighbours: the share of images whose nearest other image, by a layer's features, is of their class.

`tree` holds a folder of JPEG files a class.
"""

from typing import Literal

import numpy as np
import torch

from earshot.core.params import Pixels
from earshot.evaluation.benchmark import Benchmark, Context, Result
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.images.image_features import layer_features
from earshot.params.evaluate import BenchmarkParams


class Params(BenchmarkParams):
    """The features are those of `layer`, of images scaled to `resize` px."""

    inputs: Literal["images"]
    layer: str
    resize: Pixels


def evaluate(context: Context[Params]) -> Result:
    """The accuracy of the trained network, of its controls, and of chance."""
    files, layer = sorted(context.tree.glob("*/*.jpg")), context.params.layer
    classes = np.array([file.parent.name for file in files])
    metrics, rows = {}, [{"class": name} for name in np.unique(classes).tolist()]
    for prefix, encoder in load_encoders(context.encoder).items():
        features = layer_features(encoder, files, [layer], context.params.resize, "neighbors")[layer]
        nearest = torch.cdist(features, features).fill_diagonal_(torch.inf).argmin(1).numpy()
        correct = classes[nearest] == classes
        metrics[f"{prefix}accuracy"] = float(correct.mean())
        for row in rows:
            row[f"{prefix}accuracy"] = float(correct[classes == row["class"]].mean())
    metrics["chance"] = 1 / len(rows)
    scores = f"{metrics['accuracy']:.3f} (random {metrics['random_accuracy']:.3f})"
    return Result(metrics, rows, "nearest neighbor, accuracy", scores, [file.stem for file in files])


BENCHMARK = Benchmark(params=Params, evaluate=evaluate, title="Nearest neighbors", scores="accuracy")
