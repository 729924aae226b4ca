"""A labeler assigns labels to descriptors; it is fitted once and saved as safetensors and JSON."""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.json_files import read_json
from earshot.core.params import Group
from earshot.core.registry import find, names
from earshot.labels.model import LABEL_MODELS, Described, Fitted, Kind, LabelModel
from earshot.labels.scaling import Scale, Scaling, distance_shares, fit_scaling, mean_and_deviation
from earshot.labels.tensors import read_tensors

METADATA_FILE = "labeler.json"
TENSORS_FILE = "labeler.safetensors"
DEFAULT_SCALE: Scale = "z-score+sqrt"  # of label models without this option


def find_label_model(name: str) -> LabelModel:
    """The label model of that name. Raises EarshotError if there is none."""
    return find(LABEL_MODELS, name, "LABEL_MODEL", what="label.model")


@dataclass(frozen=True)
class Labeler:
    """Scaling, a label model fitted on the scaled descriptors, and the metadata of labeler.json."""

    scaling: Scaling
    model: Fitted
    metadata: dict[str, Any]

    @property
    def label_model(self) -> LabelModel:
        """The label model that was fitted."""
        return find_label_model(self.metadata["model"])

    @property
    def kind(self) -> Kind:
        """The kind of its labels."""
        return self.label_model.kind

    @property
    def values(self) -> int:
        """The number of clusters or bits."""
        return self.metadata["values"]

    @property
    def in_words(self) -> str:
        """A description of a label, in words."""
        return self.label_model.words.format(**self.metadata)

    @property
    def predicts(self) -> str:
        """What a network learns to predict from frames, in words."""
        return self.label_model.predicts.format(**self.metadata)

    @property
    def centroids(self) -> np.ndarray | None:
        """Centroids as unscaled descriptors, float32 (values, d); None if labels have no centroids."""
        scaled = getattr(self.model, "centroids", None)
        return None if scaled is None else self.scaling.undo(scaled)

    def entropy(self, labels: np.ndarray) -> float:
        """Entropy of labels (rows,), in bits."""
        return self.label_model.entropy(labels, self.values)

    def assign(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label of each descriptor, int64 (moments,), and its distance from the centroid, float32 (moments,).

        A label is the number of a cluster, or a binary code, whose distance is NaN.

        Args:
            descriptors: unscaled, float32 (moments, d), as the stage describe writes them.

        Raises:
            EarshotError: the number of dimensions is not that of the labeler, or values are not finite.
        """
        expected = len(self.scaling.center)
        if descriptors.ndim != 2 or descriptors.shape[1] != expected:
            raise EarshotError(f"descriptors of shape {descriptors.shape}; this labeler expects (moments, {expected})")
        if not np.isfinite(descriptors).all():
            raise EarshotError("descriptors hold values that are not finite; run the stage describe again")
        return self.model.assign(self.scaling.apply(descriptors))


@dataclass(frozen=True)
class ScaledBlocks:
    """Blocks of descriptors, scaled again in every pass, so that only one block is in memory."""

    blocks: Iterable[np.ndarray]
    scaling: Scaling

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.scaling.apply(block) for block in self.blocks)


def fit_labeler(
    blocks: Iterable[np.ndarray],
    rows: int,
    *,
    model: str,
    values: int,
    options: Group,
    described: Described,
    memory_megabytes: float,
    seed: int,
) -> Labeler:
    """Fit scaling and a label model on the training rows.

    Args:
        blocks: descriptors of the training moments that are not silent, float32 (any number, d), the same in every
            iteration over it. It is read twice if all rows fit in `memory_megabytes`, else once a pass; the labeler is
            the same.
        rows: the total number of rows.
        model: the name of the label model.
        values: the number of clusters or bits.
        options: the model's own parameters.
        described: name and parts of the descriptor.

    Raises:
        EarshotError: there are fewer rows than the model requires, or descriptors have an unexpected size.
    """
    mean, deviation = mean_and_deviation(blocks)
    if len(mean) != described.dimensions:
        message = f"descriptors of {len(mean)} dimensions, expected the {described.dimensions} of {described.name}"
        raise EarshotError(f"{message}; run the stage describe again")
    scaling = fit_scaling(mean, deviation, getattr(options, "scale", DEFAULT_SCALE), described.parts)
    scaled: Iterable[np.ndarray] = ScaledBlocks(blocks, scaling)
    if rows * len(mean) * 4 <= memory_megabytes * 1_000_000:
        scaled = list(scaled)
    fitted = find_label_model(model).fit(scaled, rows, values=values, options=options, seed=seed)
    metadata = {"model": model, "values": values, "descriptor": described.name, "dimensions": len(mean)}
    metadata |= {**options.model_dump(), "seed": seed, "rows": rows}
    if len(described.parts) > 1:
        shares = distance_shares(deviation, scaling, described.parts)
        metadata |= {f"share_{part}": share for part, share in shares.items()}
    return Labeler(scaling, fitted, metadata)


def fitted_labeler(folder: Path, blocks: Iterable[np.ndarray], rows: int, **options: Any) -> Labeler:
    """The labeler in `folder`; fits and saves it, with the options of `fit_labeler`, if it is not there yet."""
    if not (folder / METADATA_FILE).exists():
        save_labeler(folder, fit_labeler(blocks, rows, **options))
    return load_labeler(folder)


def save_labeler(folder: Path, labeler: Labeler) -> None:
    """Write labeler.safetensors, then labeler.json; if the latter exists, both are complete."""
    names_of_model = labeler.model.shapes(labeler.values, labeler.metadata["dimensions"])
    tensors = dataclasses.asdict(labeler.scaling) | {name: getattr(labeler.model, name) for name in names_of_model}
    with write_atomically(folder / TENSORS_FILE) as path:
        save_file(tensors, path)
    with write_atomically(folder / METADATA_FILE) as path:
        path.write_text(json.dumps(labeler.metadata, indent=2) + "\n", encoding="utf-8")


def load_labeler(folder: Path) -> Labeler:
    """The labeler that `save_labeler` wrote.

    Raises EarshotError if a file is missing, damaged, or inconsistent with the other.
    """
    metadata = _read_metadata(folder / METADATA_FILE)
    fitted, dimensions = find_label_model(metadata["model"]).fitted, metadata["dimensions"]
    shapes = {"center": (dimensions,), "factor": (dimensions,)} | fitted.shapes(metadata["values"], dimensions)
    center, factor, *rest = read_tensors(folder / TENSORS_FILE, shapes)
    return Labeler(Scaling(center, factor), fitted(*rest), metadata)


def _read_metadata(path: Path) -> dict[str, Any]:
    metadata, known = read_json(path, "label"), names(LABEL_MODELS)
    if metadata.get("model") not in known:
        message = f"holds no labeler of a known model ({', '.join(known)})"
        raise EarshotError(f"{path}: {message}; run the stage label again")
    for key in ("values", "dimensions"):
        if type(metadata.get(key)) is not int or metadata[key] < 1:
            message = f"{key} is {metadata.get(key)!r:.60}, expected an integer of at least 1"
            raise EarshotError(f"{path}: {message}; run the stage label again")
    return metadata
