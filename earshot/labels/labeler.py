"""A labeler: what turns a descriptor into its label, fitted once and kept as safetensors and JSON."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.labels.binary import BinaryCode, fit_binary
from earshot.labels.clusters import Clusters, fit_clusters
from earshot.labels.scaling import Scale, Scaling, descriptor_parts, distance_shares, fit_scaling, mean_and_deviation

# A label model is a dataclass of tensors with `assign`; each kind, and what fits it. `textons` are clusters of what is
# seen: the descriptors differ, not the model.
MODELS = {"clusters": Clusters, "binary": BinaryCode, "textons": Clusters}
FITS = {"clusters": fit_clusters, "binary": fit_binary, "textons": fit_clusters}
FACTS_FILE = "labeler.json"
TENSORS_FILE = "labeler.safetensors"


@dataclass(frozen=True)
class Labeler:
    """Scaling and a label model of what is scaled, with the facts of the fit that labeler.json tells."""

    scaling: Scaling
    model: Clusters | BinaryCode
    facts: dict

    def assign(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label of each descriptor, int64 (moments,), and its distance from the centroid, float32 (moments,).

        The label is the number of a cluster, or a binary code, of which the distance is NaN.

        Args:
            descriptors: unscaled, float32 (moments, d), as the stage describe writes them.

        Raises:
            EarshotError: another number of dimensions than the labeler has, or values that are not finite.
        """
        wanted = len(self.scaling.centre)
        if descriptors.ndim != 2 or descriptors.shape[1] != wanted:
            raise EarshotError(f"descriptors of shape {descriptors.shape}; this labeler wants (moments, {wanted})")
        if not np.isfinite(descriptors).all():
            raise EarshotError("descriptors hold values that are not finite; run the stage describe again")
        return self.model.assign(self.scaling.apply(descriptors))


@dataclass(frozen=True)
class ScaledBlocks:
    """Blocks of descriptors, scaled anew in every pass, so that only one block is in memory."""

    blocks: Iterable[np.ndarray]
    scaling: Scaling

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.scaling.apply(block) for block in self.blocks)


def fit_labeler(
    blocks: Iterable[np.ndarray],
    rows: int,
    *,
    kind: str,
    descriptor: str,
    scale: Scale,
    memory_megabytes: int,
    **options: Any,
) -> Labeler:
    """Fit scaling and a label model on the training rows.

    Args:
        blocks: descriptors of the training moments that are not silent, float32 (any number, d); every iteration over
            it is a pass that gives the same blocks. It is read twice where all rows fit in `memory_megabytes`, and
            once a pass where they do not; the labeler is the same.
        rows: how many there are in all.
        kind: clusters, binary or textons.
        options: of the kind: clusters, iterations, restarts and seed, or components and threshold.

    Raises:
        EarshotError: fewer rows than the model needs, or descriptors that are not of the size that `descriptor` has.
    """
    mean, deviation = mean_and_deviation(blocks)
    parts = descriptor_parts(descriptor, len(mean))
    scaling = fit_scaling(mean, deviation, scale, parts)
    scaled: Iterable[np.ndarray] = ScaledBlocks(blocks, scaling)
    if rows * len(mean) * 4 <= memory_megabytes * 1_000_000:
        scaled = list(scaled)
    model = FITS[kind](scaled, rows, **options)
    facts = {"kind": kind, "descriptor": descriptor, "dimensions": len(mean), **options, "scale": scale, "rows": rows}
    if descriptor == "texture":
        facts |= {f"share_{part}": share for part, share in distance_shares(deviation, scaling, parts).items()}
    return Labeler(scaling, model, facts)


def save_labeler(folder: Path, labeler: Labeler) -> None:
    """Write labeler.safetensors, then labeler.json, whose presence says that both are whole."""
    tensors = dataclasses.asdict(labeler.scaling) | dataclasses.asdict(labeler.model)
    with write_atomically(folder / TENSORS_FILE) as path:
        save_file(tensors, path)
    with write_atomically(folder / FACTS_FILE) as path:
        path.write_text(json.dumps(labeler.facts, indent=2) + "\n", encoding="utf-8")


def is_saved(folder: Path) -> bool:
    """Whether `folder` holds a whole labeler."""
    return (folder / FACTS_FILE).exists()


def load_labeler(folder: Path) -> Labeler:
    """The labeler that `save_labeler` wrote; nothing in the files can run code.

    Raises EarshotError where a file is missing, damaged, or does not fit the other.
    """
    facts = _read_facts(folder / FACTS_FILE)
    path = folder / TENSORS_FILE
    try:
        tensors = load_file(path)
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error}); the stage label writes it") from None
    except SafetensorError as error:
        raise EarshotError(f"{path}: is not a whole safetensors file ({error}); run the stage label again") from None
    model, dimensions = MODELS[facts["kind"]], facts["dimensions"]
    shapes = {"centre": (dimensions,), "factor": (dimensions,)} | model.shapes(facts[model.SIZE], dimensions)
    for name, shape in shapes.items():
        _check_tensor(path, name, tensors.get(name), shape)
    centre, factor, *rest = (tensors[name] for name in shapes)
    return Labeler(Scaling(centre, factor), model(*rest), facts)


def _read_facts(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); the stage label writes it") from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run the stage label again") from None
    kind = facts.get("kind") if isinstance(facts, dict) else None
    if not isinstance(kind, str) or kind not in MODELS:
        found = f"holds no labeler of a kind that is known ({', '.join(MODELS)})"
        raise EarshotError(f"{path}: {found}; run the stage label again")
    for key in (MODELS[kind].SIZE, "dimensions"):
        if type(facts.get(key)) is not int or facts[key] < 1:
            raise EarshotError(f"{path}: {key} is {facts.get(key)!r:.60}, wanted a number of at least 1")
    return facts


def _check_tensor(path: Path, name: str, tensor: np.ndarray | None, shape: Sequence[int]) -> None:
    if tensor is None:
        raise EarshotError(f"{path}: has no tensor {name}; run the stage label again")
    if tensor.dtype != np.float32 or tensor.shape != shape:
        found = f"{tensor.dtype} {tensor.shape}"
        raise EarshotError(f"{path}: {name} is {found}; {FACTS_FILE} beside it wants float32 {shape}")
    if not np.isfinite(tensor).all():
        raise EarshotError(f"{path}: {name} holds values that are not finite; run the stage label again")
