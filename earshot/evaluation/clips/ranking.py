"""Clips ranked by the distance of their embeddings, and how far apart their annotations are in an ontology."""

from collections.abc import Sequence
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
    """The ontology in a folder of annotations, for clips with these.

    Raises EarshotError as `read_ontology` does, NotApplicable where there is none, or where none of the annotations is
    a class of it.
    """
    file = folder / ONTOLOGY_FILE
    if not file.exists():
        raise NotApplicable(f"{folder}: holds no ontology; name the corpus's own as corpus.ontology")
    ontology = read_ontology(file)
    if not any(ontology.has(name) for said in annotations for name in said):
        found = f"none of the clips' annotations, such as {annotations[0][0]!r}, is among its classes"
        raise NotApplicable(f"{file}: {found}; name the corpus's own as corpus.ontology")
    return ontology


def clip_distances(ontology: Ontology, annotations: Sequence[Sequence[str]]) -> np.ndarray:
    """The least distance between an annotation of one clip and one of another: int32 (clips, clips).

    Raises EarshotError for an annotation that is no class of the ontology.
    """
    names = sorted({name for said in annotations for name in said})
    places = {name: place for place, name in enumerate(names)}
    apart = ontology.distances(names)
    own = [[places[name] for name in said] for said in annotations]
    to_class = np.stack([apart[said].min(0) for said in own])  # (clips, names)
    return np.stack([to_class[:, said].min(1) for said in own])


def rank(queries: np.ndarray, entries: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The k nearest entries of each query, nearest first: (queries, k); of equal ones the first in the database.

    Args:
        queries, entries: embeddings, (queries, dimensions) and (entries, dimensions).
        database: which entries a query may find, bool (queries, entries), at least k.

    Raises:
        EarshotError: an embedding is not a number.
    """
    if not (np.isfinite(queries).all() and np.isfinite(entries).all()):
        raise EarshotError("an embedding is not a finite number; wanted a network that was trained to the end")
    ranked = np.empty((len(queries), k), np.int64)
    own, squares = entries.astype(float), (entries.astype(float) ** 2).sum(1)
    for first in range(0, len(queries), QUERIES):
        rows = slice(first, first + QUERIES)
        # The query's own square is the same for all entries.
        distances = squares - 2 * queries[rows].astype(float) @ own.T
        distances[~database[rows]] = np.inf
        ranked[rows] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return ranked
