"""A labeler: what turns the descriptor of a sound into its label, fitted once and kept as safetensors and JSON."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from earshot.labels.kmeans import fit_kmeans, nearest_centroids
from earshot.labels.scaling import Scale, Scaling, descriptor_parts, distance_shares, fit_scaling, mean_and_deviation
from earshot.pipeline.errors import EarshotError
from earshot.pipeline.shards import write_atomically

KIND = "clusters"
FACTS_FILE = "labeler.json"
TENSORS_FILE = "labeler.safetensors"


@dataclass(frozen=True)
class Labeler:
    """Scaling and centroids, with the facts of the fit that labeler.json tells."""

    scaling: Scaling
    centroids: np.ndarray
    facts: dict

    def assign(self, descriptors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The label of each descriptor, int32 (moments,), and its distance from the centroid, float32 (moments,).

        Args:
            descriptors: unscaled, float32 (moments, d), as the stage describe writes them.

        Raises:
            EarshotError: another number of dimensions than the labeler has, or values that are not finite.
        """
        wanted = self.centroids.shape[1]
        if descriptors.ndim != 2 or descriptors.shape[1] != wanted:
            raise EarshotError(f"descriptors of shape {descriptors.shape}; this labeler wants (moments, {wanted})")
        if not np.isfinite(descriptors).all():
            raise EarshotError("descriptors hold values that are not finite; run the stage describe again")
        labels, squares = nearest_centroids(self.scaling.apply(descriptors), self.centroids)
        return labels, np.sqrt(squares)


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
    descriptor: str,
    clusters: int,
    scale: Scale,
    iterations: int,
    restarts: int,
    memory_megabytes: int,
    seed: int,
) -> Labeler:
    """Fit scaling and k-means on the training rows.

    Args:
        blocks: descriptors of the training moments that are not silent, float32 (any number, d); every iteration over
            it is a pass that gives the same blocks. It is read twice where all rows fit in `memory_megabytes`, and
            once a pass where they do not; the labeler is the same.
        rows: how many there are in all.

    Raises:
        EarshotError: fewer rows than clusters, or descriptors that are not of the size that `descriptor` has.
    """
    if rows < clusters:
        raise EarshotError(f"{rows} sounds to fit, clusters is {clusters}; give more clips or lower clusters")
    mean, deviation = mean_and_deviation(blocks)
    dimensions = len(mean)
    parts = descriptor_parts(descriptor, dimensions)
    scaling = fit_scaling(mean, deviation, scale, parts)
    scaled: Iterable[np.ndarray] = ScaledBlocks(blocks, scaling)
    if rows * dimensions * 4 <= memory_megabytes * 1_000_000:
        scaled = list(scaled)
    centroids = fit_kmeans(scaled, clusters, rows=rows, iterations=iterations, restarts=restarts, seed=seed)
    facts = {
        "kind": KIND,
        "descriptor": descriptor,
        "dimensions": dimensions,
        "clusters": clusters,
        "scale": scale,
        "rows": rows,
        "seed": seed,
    }
    if descriptor == "texture":
        facts |= {f"share_{part}": share for part, share in distance_shares(deviation, scaling, parts).items()}
    return Labeler(scaling, centroids, facts)


def save_labeler(folder: Path, labeler: Labeler) -> None:
    """Write labeler.safetensors, then labeler.json, whose presence says that both are whole."""
    tensors = {"centre": labeler.scaling.centre, "factor": labeler.scaling.factor, "centroids": labeler.centroids}
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
    clusters, dimensions = facts["clusters"], facts["dimensions"]
    shapes = {"centre": (dimensions,), "factor": (dimensions,), "centroids": (clusters, dimensions)}
    for name, shape in shapes.items():
        _check_tensor(path, name, tensors.get(name), shape)
    return Labeler(Scaling(tensors["centre"], tensors["factor"]), tensors["centroids"], facts)


def _read_facts(path: Path) -> dict:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); the stage label writes it") from None
    except ValueError as error:
        raise EarshotError(f"{path}: is not JSON ({error}); run the stage label again") from None
    if not isinstance(facts, dict) or facts.get("kind") != KIND:
        raise EarshotError(f"{path}: holds no labeler of kind {KIND!r}; run the stage label again")
    for key in ("clusters", "dimensions"):
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
