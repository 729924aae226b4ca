"""Retrieval across and within the modalities, scored by nDCG with an ontology's distances (Kim 2020, section 4.2).

One moment of each annotated clip of the split is a query and an entry of the database, in four directions. The database
is ranked by the Euclidean distance of the embeddings. The relevance of two clips is r = max(C - d, 0): d is the least
distance in the ontology between an annotation of one and an annotation of the other, C the largest distance between any
two classes (11 in AudioSet's). The gain of an entry is r, or 2^r - 1 in the scores called exponential; Kim's code has
both.

Two databases, both scored: `ndcg<k>_` leaves out the clips of the query's own video, which a network finds without
having learned what it shows; `with_query_ndcg<k>_` is the whole database with the query's own clip, as Kim ranks it,
for the comparison with the published tables. The latter is much higher, for random weights too.

The ideal ranking is that of the whole database. The control is the exact expected score of a random order.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, TypeVar

import numpy as np

from earshot.core.params import Positive
from earshot.evaluation.benchmark import Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.annotated_moments import ClipParams, describe_moments
from earshot.evaluation.clips.clip_embeddings import class_rows
from earshot.evaluation.clips.ranking import DIRECTIONS, QUERIES, clip_distances, rank, read_ontology_of

Key = TypeVar("Key")

GAINS = {"": lambda r: r, "exponential_": lambda r: 2**r - 1}
DATABASES = ("", "with_query_")  # without the query's own video, and the whole


class RetrievalParams(ClipParams):
    """The score uses the first `k` entries of a ranking."""

    k: Positive


def evaluate(context: Context[RetrievalParams]) -> Result:
    """nDCG@k of the network and its controls in four directions with both gains, and of a random order."""
    k = context.params.k
    moments = describe_moments(
        context,
        lambda network, images: network.embed_images(images),
        lambda network, sounds: network.embed_audio(sounds),
        "retrieval",
    )
    # Ties keep the order of the database. It is random, because the order of the names may carry information.
    drawn = np.random.default_rng(context.seed).permutation(len(moments.clips))
    annotations = [moments.annotations[index] for index in drawn]
    groups = np.unique(moments.groups, return_inverse=True)[1][drawn]
    fewest = len(groups) - int(np.bincount(groups).max())
    if fewest < k:
        raise NotApplicable(
            f"{context.data_dir}: {fewest} clips of other videos for a query, expected {k} or more; give more clips or "
            "lower evaluate.retrieval.k"
        )
    ontology = read_ontology_of(context.required_annotations, annotations)
    constant = ontology.diameter()
    embeddings = {
        (prefix, modality): rows[drawn].astype(float)
        for modality, of_networks in (("image", moments.images), ("audio", moments.sounds))
        for prefix, rows in of_networks.items()
    }
    retrieved = Retrieved.by(embeddings, groups, clip_distances(ontology, annotations), constant, k)
    if not retrieved.orders_differ:
        alike = f"every clip is as relevant as any other, such as to {annotations[0][0]!r}"
        raise NotApplicable(
            f"{context.data_dir}: {alike}, so each order scores the same; give clips of classes at different distances"
        )
    scores: dict[str, np.ndarray] = {}  # of every query
    for which, prefix, (query, entry) in product(DATABASES, moments.images, DIRECTIONS):
        ranked, best = retrieved.relevance[prefix, which, query, entry], retrieved.best[which]
        for name, gain in GAINS.items():
            scores[f"{prefix}{which}{name}ndcg{k}_{query}_{entry}"] = ndcg(gain(ranked), gain(best))
    for which, (name, gain) in product(DATABASES, GAINS.items()):
        best = gain(retrieved.best[which])
        scores[f"random_order_{which}{name}ndcg{k}"] = random_ndcg(retrieved.mean[which, name], best)
    metrics: dict[str, Any] = {name: float(values.mean()) for name, values in scores.items()}
    metrics |= {"C": constant, "clips": len(drawn), "clips_left_out": moments.left_out}
    summary = [_summary(metrics, f"ndcg{k}", query, entry) for query, entry in DIRECTIONS]
    summary.append(f"in random order {metrics[f'random_order_ndcg{k}']:.3f}")
    protocol = f"retrieval among {len(drawn):,} clips, nDCG@{k}, gain max({constant} - d, 0)"
    rows = class_rows(annotations, scores)
    return Result(metrics, rows, protocol, ", ".join(summary), moments.clips, item_scores=scores)


@dataclass
class Retrieved:
    """The relevance of what queries retrieve; nothing here grows with the product of queries and entries.

    Args:
        relevance: of the k retrieved entries, best first, (queries, k), by network, database and direction.
        best: the largest k of each query's database, largest first, (queries, k), by database.
        mean: the mean gain of each query's database, (queries,), by database and gain.
        orders_differ: whether the entries of some query's database, without the query's own video, differ in relevance.
    """

    relevance: dict[tuple[str, str, str, str], np.ndarray]
    best: dict[str, np.ndarray]
    mean: dict[tuple[str, str], np.ndarray]
    orders_differ: bool

    @classmethod
    def by(
        cls,
        embeddings: Mapping[tuple[str, str], np.ndarray],
        groups: np.ndarray,
        distances: Iterator[np.ndarray],
        constant: int,
        k: int,
    ) -> "Retrieved":
        """Retrieve by some queries at a time.

        Args:
            embeddings: float64 (clips, dimensions) by network and modality.
            groups: the number of each clip's video, (clips,).
            distances: of each clip from all clips in the ontology, (clips,).
            constant: the largest distance in the ontology.
        """
        relevance: dict[tuple[str, str, str, str], list[np.ndarray]] = defaultdict(list)
        best: dict[str, list[np.ndarray]] = defaultdict(list)
        mean: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)
        orders_differ = False
        for first in range(0, len(groups), QUERIES):
            rows = slice(first, first + QUERIES)
            block = np.maximum(constant - np.stack(list(islice(distances, QUERIES))), 0.0)  # (queries, entries)
            others = groups[rows, None] != groups
            orders_differ = orders_differ or _orders_differ(block, others)
            for which, database in zip(DATABASES, (others, np.ones_like(others)), strict=True):
                best[which].append(best_gains(block, database, k))
                for name, gain in GAINS.items():
                    mean[which, name].append((gain(block) * database).sum(1) / database.sum(1))
                for prefix, (query, entry) in product(dict.fromkeys(prefix for prefix, _ in embeddings), DIRECTIONS):
                    ranked = rank(embeddings[prefix, query][rows], embeddings[prefix, entry], database, k)
                    relevance[prefix, which, query, entry].append(np.take_along_axis(block, ranked, axis=1))
        return cls(_joined(relevance), _joined(best), _joined(mean), orders_differ)


def _joined(parts: Mapping[Key, list[np.ndarray]]) -> dict[Key, np.ndarray]:
    return {key: np.concatenate(rows) for key, rows in parts.items()}


def _orders_differ(relevance: np.ndarray, database: np.ndarray) -> bool:
    """Whether the entries of some query's database differ in relevance, (queries, entries) each."""
    most = np.where(database, relevance, -np.inf).max(1)
    return bool((most > np.where(database, relevance, np.inf).min(1)).any())


def best_gains(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The k largest gains of each query's database, largest first: (queries, k).

    Args:
        gains: of every entry for every query, (queries, entries), at least 0.
        database: which entries each query may retrieve, bool (queries, entries).
    """
    return -np.sort(-np.where(database, gains, 0), axis=1)[:, :k]


def ndcg(ranked: np.ndarray, best: np.ndarray) -> np.ndarray:
    """Normalized discounted cumulative gain of each query, (queries,): 1 for the ideal ranking of its database.

    The entry at rank i, from 1, counts gain / log2(i + 1) (Järvelin & Kekäläinen 2002). A query without relevant
    entries scores 0.

    Args:
        ranked: the gains of the k retrieved entries, best first, (queries, k).
        best: the k largest gains of its database, largest first, (queries, k).
    """
    discounts = _discounts(ranked.shape[1])
    return _share(ranked @ discounts, best @ discounts)


def random_ndcg(mean: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The expected nDCG@k of each query, (queries,), for a random order of its database.

    All entries are equally likely at every rank, so each rank has the mean gain.

    Args:
        mean: the mean gain of its database, (queries,).
        best: as for `ndcg`.
    """
    discounts = _discounts(best.shape[1])
    return _share(mean * discounts.sum(), best @ discounts)


def _discounts(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, k + 2))


def _share(gain: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    return np.where(ideal > 0, gain / np.where(ideal > 0, ideal, 1), 0)


def _summary(metrics: dict[str, Any], metric: str, query: str, entry: str) -> str:
    own, other = (metrics[f"{prefix}{metric}_{query}_{entry}"] for prefix in ("", "random_"))
    return f"{query} to {entry} {own:.3f} (random {other:.3f})"


BENCHMARK = Benchmark(
    params=RetrievalParams,
    evaluate=evaluate,
    title="Retrieval",
    scores=r"ndcg\d+",
    metric="nDCG",
    columns={f"{query}_{entry}": f"{query} to {entry}" for query, entry in DIRECTIONS},
    alike={"random ranking": "random_order_"},
)
