"""Ranking of clips by the distance of their embeddings, and distances of their annotations in an ontology."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from earshot.core.errors import EarshotError
from earshot.corpus.ontology import Ontology, read_ontology
from earshot.evaluation.benchmark import NotApplicable
from earshot.scenes.annotations import ONTOLOGY_FILE

# The modality of the queries, and that of the entries.
DIRECTIONS = (("image", "audio"), ("audio", "image"), ("image", "image"), ("audio", "audio"))
QUERIES = 256  # ranked at a time


def read_ontology_of(folder: Path, annotations: Sequence[Sequence[str]]) -> Ontology:
    """The ontology in a folder of annotations, for clips with these annotations.

    Raises EarshotError as `read_ontology` does, and NotApplicable if there is no ontology or none of the annotations is
    a class of it.
    """
    file = folder / ONTOLOGY_FILE
    if not file.exists():
        raise NotApplicable(f"{folder}: holds no ontology; set corpus.ontology to the corpus's own")
    ontology = read_ontology(file)
    if not any(ontology.has(name) for of_clip in annotations for name in of_clip):
        problem = f"none of the clips' annotations, such as {annotations[0][0]!r}, is among its classes"
        raise NotApplicable(f"{file}: {problem}; set corpus.ontology to the corpus's own")
    return ontology


def clip_distances(ontology: Ontology, annotations: Sequence[Sequence[str]]) -> Iterator[np.ndarray]:
    """For each clip the least distance between one of its annotations and one of every clip: int32 (clips,).

    Raises EarshotError for an annotation that is no class of the ontology.
    """
    names = sorted({name for of_clip in annotations for name in of_clip})
    indices = {name: index for index, name in enumerate(names)}
    distances = ontology.distances(names)
    own = [[indices[name] for name in of_clip] for of_clip in annotations]
    to_class = np.stack([distances[classes].min(0) for classes in own])  # (clips, names)
    for classes in own:
        yield to_class[:, classes].min(1)


def rank(queries: np.ndarray, entries: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The k nearest entries of each query, nearest first: (queries, k); ties keep the order of the database.

    Args:
        queries, entries: embeddings, (queries, dimensions) and (entries, dimensions).
        database: which entries each query may retrieve, bool (queries, entries), at least k.

    Raises:
        EarshotError: an embedding is not finite.
    """
    if not (np.isfinite(queries).all() and np.isfinite(entries).all()):
        raise EarshotError("an embedding is not finite; train the network again, with a lower learning rate")
    ranked = np.empty((len(queries), k), np.int64)
    own = entries.astype(float, copy=False)
    squares = (own**2).sum(1)
    for first in range(0, len(queries), QUERIES):
        rows = slice(first, first + QUERIES)
        # The query's own square is the same for all entries.
        distances = squares - 2 * queries[rows].astype(float) @ own.T
        distances[~database[rows]] = np.inf
        ranked[rows] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return ranked
