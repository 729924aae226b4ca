"""Retrieval across and within the senses, scored by nDCG with an ontology's distances (Kim 2020, section 4.2).

Of each annotated clip of the split one moment is a query and an entry of the database, in four directions. The
database is ranked by the Euclidean distance of the embeddings, without the clips of the query's own video. Two clips
are relevant to each other by r = max(C - d, 0): d is the least distance in the ontology between an annotation of one
and an annotation of the other, C the largest distance between any two of its classes (11 in AudioSet's). The gain of an
entry is r, or 2^r - 1 where a score is called exponential.

The ideal ranking is that of the whole database. The floor is what a ranking in random order scores on average, exactly.
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


class Params(ClipParams):
    """Scored is the ranking's first `k`."""

    k: Positive


def evaluate(context: Context[Params]) -> Result:
    """nDCG@k of the network and its controls in four directions with both gains, and of a random order."""
    k = context.params.k
    moments = describe_moments(
        context,
        lambda network, images: network.embed_images(images),
        lambda network, sounds: network.embed_audio(sounds),
        "retrieval",
    )
    # Entries at the same distance are found in the order of the database: drawn, since that of their names may tell.
    drawn = np.random.default_rng(context.seed).permutation(len(moments.clips))
    annotations = [moments.annotations[place] for place in drawn]
    groups = np.unique(moments.groups, return_inverse=True)[1][drawn]
    database = groups[:, None] != groups  # (queries, entries)
    if database.sum(1).min() < k:
        found = f"{database.sum(1).min()} clips of other videos for a query"
        raise NotApplicable(
            f"{context.data_dir}: {found}, wanted {k} or more; give more clips or set evaluate.retrieval.k"
        )
    ontology = read_ontology_of(context.required_annotations, annotations)
    constant = ontology.diameter()
    relevance = np.maximum(constant - clip_distances(ontology, annotations), 0.0)
    gains = {name: gain(relevance) for name, gain in GAINS.items()}
    scores: dict[str, np.ndarray] = {}  # of every query
    for prefix, (asked, found) in product(moments.images, DIRECTIONS):
        embeddings = {"image": moments.images[prefix][drawn], "audio": moments.sounds[prefix][drawn]}
        ranked = rank(embeddings[asked], embeddings[found], database, k)
        for name, gain in gains.items():
            scores[f"{prefix}{name}ndcg{k}_{asked}_{found}"] = ndcg(gain, database, ranked)
    for name, gain in gains.items():
        scores[f"random_order_{name}ndcg{k}"] = random_ndcg(gain, database, k)
    metrics: dict[str, Any] = {name: float(values.mean()) for name, values in scores.items()}
    metrics |= {"C": constant, "clips": len(drawn), "clips_left_out": moments.left_out}
    told = [_told(metrics, f"ndcg{k}", asked, found) for asked, found in DIRECTIONS]
    told.append(f"in random order {metrics[f'random_order_ndcg{k}']:.3f}")
    protocol = f"retrieval among {len(drawn):,} clips, nDCG@{k}, gain max({constant} - d, 0)"
    return Result(metrics, class_rows(annotations, scores), protocol, ", ".join(told), moments.clips)


def ndcg(gains: np.ndarray, database: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    """Normalised discounted cumulative gain of each query, (queries,): 1 for the ideal ranking of its database.

    The entry at rank i, from 1 on, counts its gain / log2(i + 1) (Järvelin & Kekäläinen 2002). A query to which nothing
    is relevant scores 0.

    Args:
        gains: of every entry for every query, (queries, entries), at least 0.
        database: which entries a query may find, bool (queries, entries).
        ranked: the k entries found, best first, (queries, k).
    """
    found = np.take_along_axis(gains, ranked, axis=1) @ _discounts(ranked.shape[1])
    return _share(found, ideal_gain(gains, database, ranked.shape[1]))


def random_ndcg(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The expected nDCG@k of each query, (queries,), where its database stands in random order.

    Every entry is at every rank as likely as any other, so that each rank has the mean gain.
    """
    mean = (gains * database).sum(1) / database.sum(1)
    return _share(mean * _discounts(k).sum(), ideal_gain(gains, database, k))


def ideal_gain(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    """The discounted gain of the k best entries of each query's database, best first: (queries,)."""
    best = -np.sort(-np.where(database, gains, 0), axis=1)[:, :k]
    return best @ _discounts(k)


def _discounts(k: int) -> np.ndarray:
    return 1 / np.log2(np.arange(2, k + 2))


def _share(found: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    return np.where(ideal > 0, found / np.where(ideal > 0, ideal, 1), 0)


def _told(metrics: dict[str, Any], metric: str, asked: str, found: str) -> str:
    own, other = (metrics[f"{prefix}{metric}_{asked}_{found}"] for prefix in ("", "random_"))
    return f"{asked} to {found} {own:.3f} (random {other:.3f})"


BENCHMARK = Benchmark(
    params=Params,
    evaluate=evaluate,
    title="Retrieval",
    scores=r"ndcg\d+",
    metric="nDCG",
    columns={f"{asked}_{found}": f"{asked} to {found}" for asked, found in DIRECTIONS},
    alike={"random ranking": "random_order_"},
)
