"""Agreement of clusters of embeddings with annotations (Arandjelovic & Zisserman 2017, section 3.5.3, Table 4).

One moment of each annotated clip of the split; k-means of the image embeddings and, separately, of the audio
embeddings; normalized mutual information, by the mean of the two entropies, of the clusters and the clips' classes. The
class of a clip is its first annotation. Controls: a random network, and random clusters, whose score is the higher the
fewer clips a cluster has. A network of the stage pretrain embeds images alone, by its last layer for probes.
"""

from typing import Annotated, Any

import numpy as np
from pydantic import Field
from torch import Tensor

from earshot.evaluation.benchmark import Benchmark, Context, NotApplicable, Result
from earshot.evaluation.clips.annotated_moments import ClipParams, describe_moments
from earshot.evaluation.clips.clip_embeddings import last_features, takes_audio
from earshot.evaluation.significance import resampled_counts
from earshot.labels.kmeans import fit_kmeans, nearest_centroids

PROTOCOL = "normalized mutual information of k-means clusters and classes"
PERMUTATIONS = 20  # random assignments, whose scores are averaged


class NmiParams(ClipParams):
    """The number of clusters of each modality."""

    clusters: Annotated[int, Field(ge=2)]


def evaluate(context: Context[NmiParams]) -> Result:
    """The score of each modality's clusters, for the network, its controls, and random clusters."""
    clusters, seed = context.params.clusters, context.seed
    embed_images, embed_audio = (_embed_images, _embed_audio) if takes_audio(context.encoder) else (last_features, None)
    moments = describe_moments(context, embed_images, embed_audio, "nmi")
    if len(moments.clips) < clusters:
        actual = f"{len(moments.clips)} annotated clips in the split {context.params.split}"
        raise NotApplicable(
            f"{context.data_dir}: {actual}, expected one per cluster, {clusters} or more; give more clips"
        )
    from sklearn.metrics import normalized_mutual_info_score  # takes as long to import as torch

    names, classes = np.unique([of_clip[0] for of_clip in moments.annotations], return_inverse=True)
    counts = resampled_counts(len(classes))
    metrics: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    rows = [{"class": name, "clips": int((classes == number).sum())} for number, name in enumerate(names.tolist())]
    embeddings = {"image": moments.images, "audio": moments.sounds}
    for prefix in moments.images:
        for modality in (name for name, of_networks in embeddings.items() if of_networks):
            labels = cluster(embeddings[modality][prefix], clusters, seed)
            metrics[f"{prefix}nmi_{modality}"] = float(normalized_mutual_info_score(classes, labels))
            drawn[f"{prefix}nmi_{modality}"] = resampled_nmi(classes, labels, counts)
            for number, row in enumerate(rows):
                row[f"{prefix}share_{modality}"] = largest_share(labels[classes == number])
    random_labels = random_clusters(clusters, len(classes), seed)
    metrics["chance"] = float(np.mean([normalized_mutual_info_score(classes, labels) for labels in random_labels]))
    drawn["chance"] = np.mean([resampled_nmi(classes, labels, counts) for labels in random_labels], axis=0)
    metrics |= {"clusters": clusters, "clips": len(classes), "clips_left_out": moments.left_out}
    summary = [f"{modality} {metrics[f'nmi_{modality}']:.3f} (random network {metrics[f'random_nmi_{modality}']:.3f})"
               for modality, of_networks in embeddings.items() if of_networks]  # fmt: skip
    scores = f"{', '.join(summary)}; random clusters {metrics['chance']:.3f}"
    protocol = f"{PROTOCOL}, K = {clusters}, {len(classes):,} clips"
    return Result(metrics, rows, protocol, scores, moments.clips, drawn=drawn)


def _embed_images(network: Any, images: Tensor) -> Tensor:
    return network.embed_images(images)


def _embed_audio(network: Any, sounds: Tensor) -> Tensor:
    return network.embed_audio(sounds)


def cluster(embeddings: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each clip, int32 (clips,), of embeddings (clips, dimensions).

    Raises EarshotError if there are fewer clips than clusters.
    """
    rows = np.ascontiguousarray(embeddings, np.float32)
    centroids = fit_kmeans([rows], clusters, rows=len(rows), seed=seed)
    return nearest_centroids(rows, centroids)[0]


def random_clusters(clusters: int, clips: int, seed: int) -> np.ndarray:
    """Random assignments of the clips to clusters, int (PERMUTATIONS, clips)."""
    return np.random.default_rng(seed).integers(clusters, size=(PERMUTATIONS, clips))


def resampled_nmi(classes: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The score in resamples of the clips, (draws,), by the mean of the two entropies.

    Args:
        classes, labels: the class and the cluster of each clip, (clips,).
        counts: how often each clip occurs in each resample, (draws, clips).
    """
    cells, cell = np.unique(np.stack([classes, labels]), axis=1, return_inverse=True)
    joint = (counts @ np.eye(cells.shape[1])[cell.ravel()]) / counts.sum(1, keepdims=True)  # (draws, cells)
    of_class, of_label = (joint @ (side[:, None] == np.unique(side)) for side in cells)
    by_class, by_label, both = (entropy(part) for part in (of_class, of_label, joint))
    mean = (by_class + by_label) / 2
    return np.where(mean > 0, (by_class + by_label - both) / np.where(mean > 0, mean, 1), 1.0)


def entropy(shares: np.ndarray) -> np.ndarray:
    """The entropy of distributions in nats, (draws,), from shares (draws, cells)."""
    return -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)


def largest_share(labels: np.ndarray) -> float:
    """The largest share of a class's clips in one cluster."""
    return float(np.bincount(labels).max() / len(labels))


BENCHMARK = Benchmark(
    params=NmiParams,
    evaluate=evaluate,
    title="Clusters against annotations",
    scores="nmi",
    leading="nmi_image",
    metric="NMI",
    brief="NMI of images",
)
