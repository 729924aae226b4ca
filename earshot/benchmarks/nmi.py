"""Agreement of clusters of embeddings with annotations (Arandjelovic & Zisserman 2017, section 3.5.3, Table 4).

One moment of each annotated clip of the split; k-means of the image embeddings and, separately, of the audio
embeddings; normalized mutual information, by the mean of the two entropies, of the clusters and the clips' classes. The
class of a clip is its first annotation. Controls: a random network, and random clusters, whose score is the higher the
fewer clips a cluster has.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field
from sklearn.metrics import normalized_mutual_info_score

from earshot.evaluation.benchmark import Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.annotated_moments import ClipParams, describe_moments
from earshot.labels.kmeans import fit_kmeans, nearest_centroids

PROTOCOL = "normalized mutual information of k-means clusters and classes"
PERMUTATIONS = 20  # random assignments, whose scores are averaged


class Params(ClipParams):
    """The number of clusters of each modality."""

    clusters: Annotated[int, Field(ge=2)]


def evaluate(context: Context[Params]) -> Result:
    """The score of each modality's clusters, for the network, its controls, and random clusters."""
    clusters, seed = context.params.clusters, context.seed
    moments = describe_moments(
        context,
        lambda network, images: network.embed_images(images),
        lambda network, sounds: network.embed_audio(sounds),
        "nmi",
    )
    if len(moments.clips) < clusters:
        actual = f"{len(moments.clips)} annotated clips in the split {context.params.split}"
        raise NotApplicable(
            f"{context.data_dir}: {actual}, expected one per cluster, {clusters} or more; give more clips"
        )
    names, classes = np.unique([of_clip[0] for of_clip in moments.annotations], return_inverse=True)
    metrics: dict[str, Any] = {}
    rows = [{"class": name, "clips": int((classes == number).sum())} for number, name in enumerate(names.tolist())]
    for prefix in moments.images:
        for modality, embeddings in (("image", moments.images[prefix]), ("audio", moments.sounds[prefix])):
            labels = cluster(embeddings, clusters, seed)
            metrics[f"{prefix}nmi_{modality}"] = float(normalized_mutual_info_score(classes, labels))
            for number, row in enumerate(rows):
                row[f"{prefix}share_{modality}"] = largest_share(labels[classes == number])
    metrics["chance"] = random_nmi(classes, clusters, seed)
    metrics |= {"clusters": clusters, "clips": len(classes), "clips_left_out": moments.left_out}
    summary = [f"{modality} {metrics[f'nmi_{modality}']:.3f} (random network {metrics[f'random_nmi_{modality}']:.3f})"
               for modality in ("image", "audio")]  # fmt: skip
    scores = f"{', '.join(summary)}; random clusters {metrics['chance']:.3f}"
    return Result(metrics, rows, f"{PROTOCOL}, K = {clusters}, {len(classes):,} clips", scores, moments.clips)


def cluster(embeddings: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each clip, int32 (clips,), of embeddings (clips, dimensions).

    Raises EarshotError if there are fewer clips than clusters.
    """
    rows = np.ascontiguousarray(embeddings, np.float32)
    centroids = fit_kmeans([rows], clusters, rows=len(rows), seed=seed)
    return nearest_centroids(rows, centroids)[0]


def random_nmi(classes: np.ndarray, clusters: int, seed: int) -> float:
    """The mean score of random clusters; classes: (clips,)."""
    drawn = np.random.default_rng(seed).integers(clusters, size=(PERMUTATIONS, len(classes)))
    return float(np.mean([normalized_mutual_info_score(classes, labels) for labels in drawn]))


def largest_share(labels: np.ndarray) -> float:
    """The largest share of a class's clips in one cluster."""
    return float(np.bincount(labels).max() / len(labels))


BENCHMARK = Benchmark(
    params=Params,
    evaluate=evaluate,
    title="Clusters against annotations",
    scores="nmi",
    leading="nmi_image",
    metric="NMI",
    brief="NMI of images",
)
