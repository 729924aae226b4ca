"""Classification of recordings from their windows: the protocol of the sound benchmarks.

Equally spaced windows of every recording become features; each dimension is z-scored on the training windows;
one-vs-rest linear SVMs, or another probe, classify the windows, and the scores of a recording's windows are averaged
(Arandjelovic & Zisserman 2017, section 3.3). The features come from one of two encoders:

- A network's audio tower: windows of 1 s, conv4_2 before its ReLU, max-pooled to 4 x 3 (6144 dimensions at width 1).
  Controls: the same tower with random weights, and trained on wrong sounds.
- The descriptor of the pipeline: windows of 3.75 s, trailing digital zeros trimmed. Control: the spectrum.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import joblib
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from earshot.core.params import Positive
from earshot.evaluation.benchmark import NETWORK_CONTROLS, PLAIN_PROBE, Context, Result
from earshot.evaluation.encoders import load_encoders
from earshot.evaluation.metrics import accuracy
from earshot.evaluation.probing import (
    PROBES,
    Probes,
    cross_validated_probe,
    in_words,
    one_vs_rest,
    scored_as,
)
from earshot.evaluation.recordings.windows import cut_recording, describe_recording
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.device import on_device
from earshot.networks.files import load_correspondence
from earshot.networks.towers import pooled
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings

if TYPE_CHECKING:
    from earshot.sound.description import Description

DESCRIPTOR_FILE = "descriptor.json"  # in the folder of an encoder that is a descriptor and no network
CONTROL = "spectrum"  # the smallest descriptor, the control of other descriptors
FREQUENCIES, TIMES = 4, 3  # positions of an audio tower's map after pooling
AT_ONCE = 32  # windows per batch of a tower

# From files and a title for the progress bar to the features of each file in order, (windows, dimensions).
Describe = Callable[[Sequence[Path], str], Iterator[np.ndarray]]


class RecordingParams(BenchmarkParams):
    """The number of equally spaced windows of a recording, and what classifies them."""

    inputs: Literal["recordings"]
    windows: Positive
    probes: Probes


# How the scores of these benchmarks are displayed.
DISPLAY: dict[str, Any] = {
    "scores": "accuracy",
    "leading": "accuracy",
    "metric": "accuracy",
    "controls": NETWORK_CONTROLS | {CONTROL: f"{CONTROL}_"},
    "own_beside": {CONTROL: "descriptor"},
    "not_scores": ("accuracy_std",),
    "class_score": "accuracy",
}


@dataclass(frozen=True)
class Split:
    """The training and test recordings.

    Args:
        train, test: indices of recordings.
        folds: the cross-validation fold of each recording of `train`, for the choice of C.
    """

    train: np.ndarray
    test: np.ndarray
    folds: np.ndarray


def evaluate_recordings(
    context: Context[RecordingParams],
    files: Sequence[Path],
    classes: Sequence[str],
    targets: np.ndarray,
    splits: Sequence[Split],
    protocol: str,
) -> Result:
    """The mean accuracy over the splits of the encoder and its controls by every probe, and that of chance.

    Args:
        context: its encoder and `params.windows` define the features.
        files: of the recordings.
        classes: names of the classes.
        targets: the class index of each recording.
        splits: each gives an accuracy.
        protocol: its name, with {} in the place of the probes.
    """
    metrics: dict[str, float] = {}
    rows: list[dict[str, Any]] = [{"class": name} for name in classes]
    actual = np.concatenate([targets[split.test] for split in splits])
    summary: list[str] = []
    item_scores: dict[str, np.ndarray] = {}  # which recordings are classified correctly
    confusion: list[tuple[str, str]] = []  # of the encoder, which comes first
    for plain, (name, describe) in describers(context).items():
        features = _collect(describe(files, name), len(files))
        for kind in context.params.probes:
            metric, title = scored_as(plain, kind), name if kind == PLAIN_PROBE else f"{name} by {PROBES[kind].title}"
            by_split = classify(kind, features, targets, splits, title)
            scores = [float(np.mean(part == targets[split.test])) for part, split in zip(by_split, splits, strict=True)]
            metrics[metric] = float(np.mean(scores))
            if plain == "accuracy" and len(splits) > 1:
                metrics[scored_as("accuracy_std", kind)] = float(np.std(scores))
            predicted = np.concatenate(by_split)
            confusion = confusion or [(classes[a], classes[b]) for a, b in zip(actual, predicted, strict=True)]
            right = item_scores[metric] = predicted == actual
            for number, row in enumerate(rows):
                row[metric] = float(right[actual == number].mean())
            summary.append(f"{title} {metrics[metric]:.3f}")
    metrics["chance"] = 1 / len(classes)
    names = [str(files[index].relative_to(context.data_dir)) for split in splits for index in split.test]
    scored = f"{', '.join(summary)}; chance {metrics['chance']:.3f}"
    learned = not _is_descriptor(context.encoder)
    protocol = protocol.format(in_words(context.params.probes))
    return Result(metrics, rows, protocol, scored, names, confusion, item_scores, learned)


def describers(context: Context[RecordingParams]) -> dict[str, tuple[str, Describe]]:
    """By metric, the name and the feature function of the encoder and its controls, the encoder first.

    Raises EarshotError as `load_correspondence` and `load_description` do.
    """
    windows = context.params.windows
    if _is_descriptor(context.encoder):
        from earshot.sound.description import Description, load_description  # a tower needs none of earshot/sound

        measured = load_description(context.encoder)
        described = {"accuracy": measured}
        if measured.name != CONTROL:
            described[f"{CONTROL}_accuracy"] = Description(CONTROL, measured.texture)
        return {
            metric: (description.name, partial(describe_recordings, description=description, windows=windows))
            for metric, description in described.items()
        }
    networks = load_encoders(context.encoder, load_correspondence)
    return {
        f"{prefix}accuracy": (
            prefix.replace("_", " ").strip() or network.architecture["name"],
            partial(embed_recordings, network=network, windows=windows),
        )
        for prefix, network in networks.items()
    }


def classify(kind: str, features: Tensor, targets: np.ndarray, splits: Sequence[Split], name: str) -> list[np.ndarray]:
    """The class index of each test recording that a kind of probe predicts, (recordings,) per split.

    features: (recordings, windows, dimensions); targets: (recordings,).
    """
    windows, dimensions = features.shape[1:]
    signs = one_vs_rest(targets)
    predicted = []
    for number, split in enumerate(splits, 1):
        train, test = torch.from_numpy(split.train), torch.from_numpy(split.test)
        rows = features[train].reshape(-1, dimensions)
        mean, deviation = rows.mean(0), rows.std(0)
        deviation = torch.where(deviation > 0, deviation, 1)  # a constant dimension stays at zero
        inner = np.repeat(split.folds, windows)
        test_rows = (features[test].reshape(-1, dimensions) - mean) / deviation
        labeled = (rows - mean) / deviation, signs[train].repeat_interleave(windows, 0)
        title = f"{name}, split {number}"
        result = cross_validated_probe(PROBES[kind], labeled, inner, test_rows, accuracy, name=title)
        scores = result.scores.reshape(-1, windows, signs.shape[1]).mean(1)  # (recordings, classes)
        predicted.append(scores.argmax(1))
    return predicted


@torch.inference_mode()
def embed_recordings(files: Sequence[Path], title: str, network: Correspondence, windows: int) -> Iterator[np.ndarray]:
    """Features of equally spaced windows of 1 s from an audio tower: conv4_2 before its ReLU, pooled to 4 x 3.

    Raises EarshotError for a network without an audio tower.
    """
    device = on_device(network).channel_mean.device
    cut = partial(cut_recording, windows=windows, samples=network.audio_samples, rate=network.audio_rate)
    for waveforms in _each(cut, files, title):
        parts = torch.from_numpy(waveforms).to(device).split(AT_ONCE)
        described = [pooled(network.audio_maps(part), FREQUENCIES, TIMES).float().cpu() for part in parts]
        yield torch.cat(described).numpy()


def describe_recordings(
    files: Sequence[Path], title: str, description: "Description", windows: int
) -> Iterator[np.ndarray]:
    """The descriptors of equally spaced windows of 3.75 s."""
    yield from _each(partial(describe_recording, description=description, windows=windows), files, title)


def _is_descriptor(encoder: Path) -> bool:
    return (encoder / DESCRIPTOR_FILE).exists()


def _collect(described: Iterator[np.ndarray], count: int) -> Tensor:
    """The features of `count` files, float32 (recordings, windows, dimensions), without a second copy in memory."""
    features = torch.empty(0)
    for number, rows in enumerate(described):
        if not number:
            features = torch.empty(count, *rows.shape)
        features[number] = torch.from_numpy(rows)
    return features


def _each(work: Callable[[Path], np.ndarray], files: Sequence[Path], title: str) -> Iterable[np.ndarray]:
    """The results of `work` for each file, in order, by several processes, with a progress bar."""
    with joblib.parallel_config("loky", n_jobs=settings().workers, inner_max_num_threads=1):
        results = joblib.Parallel(return_as="generator")(joblib.delayed(work)(file) for file in files)
        yield from tqdm(results, total=len(files), desc=title, unit="recording", leave=False, disable=None)
