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

from itertools import product
from typing import Any

import numpy as np

from earshot.core.params import Positive
from earshot.evaluation.benchmark import Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.annotated_moments import ClipParams, describe_moments
from earshot.evaluation.clips.clip_embeddings import class_rows
from earshot.evaluation.clips.ranking import DIRECTIONS, clip_distances, rank, read_ontology_of

GAINS = {"": lambda r: r, "exponential_": lambda r: 2**r - 1}
WITH_QUERY = "with_query_"


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
    database = groups[:, None] != groups  # (queries, entries)
    if database.sum(1).min() < k:
        actual = f"{database.sum(1).min()} clips of other videos for a query"
        raise NotApplicable(
            f"{context.data_dir}: {actual}, expected {k} or more; give more clips or lower evaluate.retrieval.k"
        )
    ontology = read_ontology_of(context.required_annotations, annotations)
    constant = ontology.diameter()
    relevance = np.maximum(constant - clip_distances(ontology, annotations), 0.0)
    if not _orders_differ(relevance, database):
        alike = f"every clip is as relevant as any other, such as to {annotations[0][0]!r}"
        raise NotApplicable(
            f"{context.data_dir}: {alike}, so each order scores the same; give clips of classes at different distances"
        )
    gains = {name: gain(relevance) for name, gain in GAINS.items()}
    databases = {"": database, WITH_QUERY: np.ones_like(database)}
    scores: dict[str, np.ndarray] = {}  # of every query
    for (which, entries), prefix, (query, entry) in product(databases.items(), moments.images, DIRECTIONS):
        embeddings = {"image": moments.images[prefix][drawn], "audio": moments.sounds[prefix][drawn]}
        ranked = rank(embeddings[query], embeddings[entry], entries, k)
        for name, gain in gains.items():
            scores[f"{prefix}{which}{name}ndcg{k}_{query}_{entry}"] = ndcg(gain, entries, ranked)
    for (which, entries), (name, gain) in product(databases.items(), gains.items()):
        scores[f"random_order_{which}{name}ndcg{k}"] = random_ndcg(gain, entries, k)
    metrics: dict[str, Any] = {name: float(values.mean()) for name, values in scores.items()}
    metrics |= {"C": constant, "clips": len(drawn), "clips_left_out": moments.left_out}
    summary = [_summary(metrics, f"ndcg{k}", query, entry) for query, entry in DIRECTIONS]
    summary.append(f"in random order {metrics[f'random_order_ndcg{k}']:.3f}")
    protocol = f"retrieval among {len(drawn):,} clips, nDCG@{k}, gain max({constant} - d, 0)"
    rows = class_rows(annotations, scores)
    return Result(metrics, rows, protocol, ", ".join(summary), moments.clips, item_scores=scores)


def _orders_differ(relevance: np.ndarray, database: np.ndarray) -> bool:
    """Whether the entries of some query's database differ in relevance, (queries, entries) each."""
    most = np.where(database, relevance, -np.inf).max(1)
    return bool((most > np.where(database, relevance, np.inf).min(1)).any())


def ndcg(gains: np.ndarray, database: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Normalized discounted cumulative gain of each query, (queries,): 1 for the ideal ranking of its database.

    The entry at rank i, from 1, counts gain / log2(i + 1) (Järvelin & Kekäläinen 2002). A query without relevant
    entries scores 0.

    Args:
        gains: of every entry for every query, (queries, entries), at least 0.
        database: which entries each query may retrieve, bool (queries, entries).
        ranked: the k retrieved entries, best first, (queries, k).
    """
    gain = np.take_along_axis(gains, ranked, axis=1) @ _discounts(ranked.shape[1])
    return _share(gain, ideal_gain(gains, database, ranked.shape[1]))


def random_ndcg(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The expected nDCG@k of each query, (queries,), for a random order of its database.

    All entries are equally likely at every rank, so each rank has the mean gain.
    """
    mean = (gains * database).sum(1) / database.sum(1)
    return _share(mean * _discounts(k).sum(), ideal_gain(gains, database, k))


def ideal_gain(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The discounted gain of the k best entries of each query's database, best first: (queries,)."""
    best = -np.sort(-np.where(database, gains, 0), axis=1)[:, :k]
    return best @ _discounts(k)


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
