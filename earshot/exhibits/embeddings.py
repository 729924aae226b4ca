"""Embeddings: t-SNE maps of images and of audio, one per network and modality, and the precision of neighbors.

A point is the moment nearest to the middle of a clip. `knn_precision` is the share of a clip's ten nearest neighbors,
in the embedding itself and from other videos, that share an annotation with it. It is measured for the trained network
and its controls; chance is the same share among all clips of other videos.

Networks that embed images and audio also get one map of both together (Kim 2020, section 4.4 and Figure 6). How well
the modalities mix in the embedding is `modality_mixing`: of the ten nearest neighbors of a point, from other videos,
the share that has the other modality, divided by the share among all points of other videos, which is a half. So 1 is a
perfect mixture, and 0 means that the modalities lie apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from threadpoolctl import threadpool_limits

from earshot.core.params import Amount, SplitName
from earshot.evaluation.clips.clip_embeddings import (
    annotation_table,
    clip_names,
    clips_of_split,
    describe_clips,
    images_alone,
    last_features,
    load_correspondences,
    load_image_encoders,
    middle_moment,
    read_all_annotations,
    takes_audio,
)
from earshot.evaluation.clips.ranking import rank
from earshot.explanation.encoders import NETWORKS, why_no_towers
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
from earshot.explanation.media import smaller_jpeg
from earshot.explanation.sampling import draw_names
from earshot.explanation.tables import BYTES, INT, MOMENT, REAL, TEXT, write_table
from earshot.params.explain import ExhibitParams
from earshot.scenes.clips import InputSpec, SceneClip

THUMBNAIL = 64  # px
FEWEST = 5  # points
NEIGHBORS = 10
CROWDED = 3  # minimum number of points per neighbor of the perplexity (van der Maaten's code requires it)

Embeddings = Mapping[str, Mapping[str, np.ndarray]]  # by modality and the prefix of the network, (points, dimensions)
KnnPrecision = Mapping[tuple[str, str], Mapping[int, float]]  # by prefix and modality, then by the number of a point
TABLES = {
    "embeddings": pa.schema({  # one row per network, modality and moment
        "network": TEXT,
        "modality": TEXT,
        "clip_id": TEXT,
        "moment": INT,
        "x": REAL,  # t-SNE of one network and modality, scaled into [0, 1]
        "y": REAL,
        "knn_precision": REAL,  # share of its neighbors that share an annotation; null if it has no annotation
    }),
    "embeddings_joint": pa.schema({  # one row per network, modality and moment; empty without audio
        "network": TEXT,
        "modality": TEXT,
        "clip_id": TEXT,
        "moment": INT,
        "x": REAL,  # one t-SNE of a network's images and audio, scaled into [0, 1]
        "y": REAL,
    }),
    "embedding_moments": pa.schema({**MOMENT, "thumbnail": BYTES}),  # one row per moment; JPEG, 64 px
}  # fmt: skip


class EmbeddingExhibitParams(ExhibitParams):
    """Which moments to embed, and the perplexity of t-SNE."""

    split: SplitName
    points: Annotated[int, Field(ge=10)]
    perplexity: Amount


def make(context: ExhibitContext) -> ExhibitResult:
    """The tables embeddings and embedding_moments."""
    if takes_audio(context.encoder) and (reason := why_no_towers(context.encoder)):
        return skipped(reason)
    points, embeddings = embed(context)
    if len(points) < FEWEST:
        return skipped(f"the split {context.params.split} has {len(points)} clips, expected at least {FEWEST}")
    perplexity = min(context.params.perplexity, (len(points) - 1) / CROWDED)
    write_table(context.folder, TABLES, "embedding_moments", points)
    measured, knn_precision = measure(points, embeddings, context.seed)
    write_table(
        context.folder, TABLES, "embeddings", point_rows(points, embeddings, knn_precision, perplexity, context.seed)
    )
    write_table(
        context.folder,
        TABLES,
        "embeddings_joint",
        joint_rows(points, embeddings, context.params.perplexity, context.seed),
    )
    metrics = {"points": len(points), **measured, **measure_mixing(points, embeddings, context.seed)}
    parts = [
        f"{name} {metrics[f'knn_precision_{name}']:.3f} (random {metrics[f'random_knn_precision_{name}']:.3f})"
        for name in embeddings
        if "chance" in metrics
    ]
    closing = f"{len(points):,} clips of the split {context.params.split}"
    if parts:
        closing += f"; neighbors that share an annotation: {', '.join(parts)}; chance {metrics['chance']:.3f}"
    if "modality_mixing" in metrics:
        mixing, random = (f"{metrics[f'{prefix}modality_mixing']:.3f}" for prefix in ("", "random_"))
        closing += f"; images and audio mix by {mixing} (random {random})"
    metadata = {"split": context.params.split, "method": f"t-SNE from PCA, perplexity {perplexity:g}"}
    return ExhibitResult(metadata | {"modalities": ", ".join(embeddings)}, metrics, closing)


def embed(context: ExhibitContext) -> tuple[list[dict[str, Any]], Embeddings]:
    """The moments of at most params.points clips, as sorted rows of embedding_moments; and their embeddings."""
    if takes_audio(context.encoder):
        networks = load_correspondences(context.encoder)
        spec, embed_images, embed_audio = InputSpec.by(networks[""]), _embed_images, _embed_audio
    else:
        networks = load_image_encoders(context.encoder)
        spec, embed_images, embed_audio = images_alone(networks[""]), last_features, None
    split, annotations = context.params.split, read_all_annotations(context.annotations)
    drawn = draw_names(clip_names(context.data_dir, spec, split), context.params.points, context.seed)
    points: list[dict[str, Any]] = []
    clips = _record_points(clips_of_split(context.data_dir, spec, split, drawn), spec, annotations, points)
    _, images, audio = describe_clips(context.data_dir, clips, spec, networks, embed_images, embed_audio, "embeddings")
    embeddings = {"image": images} | ({"audio": audio} if embed_audio else {})
    return sorted(points, key=lambda point: (point["clip_id"], point["group"])), embeddings


def _record_points(
    clips: Iterable[SceneClip], spec: InputSpec, annotations: Mapping[str, Sequence[str]], points: list[dict[str, Any]]
) -> Iterator[SceneClip]:
    """Yields the clips unchanged and appends the moment of each to `points`."""
    for clip in clips:
        number, _ = middle_moment(clip, spec.seconds)
        points.append(
            {
                "clip_id": clip.clip_id,
                "moment": number,
                "group": clip.group,
                "annotations": annotations.get(clip.clip_id, ()),
                "thumbnail": smaller_jpeg(clip.frames[number], THUMBNAIL),
            }
        )
        yield clip


def _embed_images(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network.embed_images(images)


def _embed_audio(network: Any, audio: torch.Tensor) -> torch.Tensor:
    return network.embed_audio(audio)


def point_rows(
    points: Sequence[Mapping[str, Any]],
    embeddings: Embeddings,
    knn_precision: KnnPrecision,
    perplexity: float,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The rows of the table embeddings, by network and modality."""
    for prefix in embeddings["image"]:
        for modality, of_networks in embeddings.items():
            shares = knn_precision.get((prefix, modality), {})
            positions = project(of_networks[prefix], perplexity, seed).tolist()
            for number, (point, (x, y)) in enumerate(zip(points, positions, strict=True)):
                named = {name: point[name] for name in ("clip_id", "moment")}
                named |= {"network": NETWORKS[prefix], "modality": modality}
                yield {**named, "x": x, "y": y, "knn_precision": shares.get(number)}


def joint_rows(
    points: Sequence[Mapping[str, Any]], embeddings: Embeddings, perplexity: float, seed: int
) -> Iterator[dict[str, Any]]:
    """The rows of the table embeddings_joint: none if there is no audio."""
    for prefix in embeddings["image"] if "audio" in embeddings else ():
        both = np.concatenate([embeddings[modality][prefix] for modality in ("image", "audio")])
        positions = project(both, min(perplexity, (len(both) - 1) / CROWDED), seed).tolist()
        named = [(modality, point) for modality in ("image", "audio") for point in points]
        for (modality, point), (x, y) in zip(named, positions, strict=True):
            moment = {name: point[name] for name in ("clip_id", "moment")}
            yield {"network": NETWORKS[prefix], "modality": modality, **moment, "x": x, "y": y}


def measure_mixing(points: Sequence[Mapping[str, Any]], embeddings: Embeddings, seed: int) -> dict[str, float]:
    """`modality_mixing` of each network; empty without audio, or if all points are of one video."""
    groups = np.tile(np.unique([point["group"] for point in points], return_inverse=True)[1], 2)
    database = groups[:, None] != groups  # (images and audio, images and audio)
    if "audio" not in embeddings or not database.any():
        return {}
    order = np.random.default_rng(seed).permutation(len(groups))  # ties in distance are ranked in this order
    is_audio = (np.arange(len(groups)) >= len(points))[order]
    database = database[np.ix_(order, order)]
    nearest = min(NEIGHBORS, int(database.sum(1).min()))
    metrics = {}
    for prefix in embeddings["image"]:
        both = np.concatenate([embeddings[modality][prefix] for modality in ("image", "audio")])[order]
        ranked = rank(both, both, database, nearest)
        other = is_audio[ranked] != is_audio[:, None]  # (images and audio, nearest)
        metrics[f"{prefix}modality_mixing"] = 2 * float(other.mean())
    return metrics


def project(embeddings: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of embeddings (points, dimensions), scaled to fill the width or the height of the unit square: (points, 2).

    t-SNE starts from PCA, or from random positions if the embeddings span fewer than two dimensions.
    """
    from sklearn.manifold import TSNE  # takes as long to import as torch

    rows = embeddings.astype(np.float64)
    flat = rows.shape[1] < 2 or np.linalg.matrix_rank(rows - rows.mean(0)) < 2
    tsne = TSNE(perplexity=perplexity, init="random" if flat else "pca", random_state=seed, n_jobs=1)
    with threadpool_limits(1):  # sums, and so positions, depend on the number of threads
        positions = tsne.fit_transform(rows)
    middle = (positions.max(0) + positions.min(0)) / 2
    return (positions - middle) / max(np.ptp(positions, axis=0).max(), np.finfo(float).tiny) + 0.5


def measure(
    points: Sequence[Mapping[str, Any]], embeddings: Embeddings, seed: int
) -> tuple[dict[str, Any], dict[tuple[str, str], dict[int, float]]]:
    """The share of neighbors that share an annotation, by network and modality, and for each point by its number.

    Both are empty if no clip is annotated.
    """
    # Ties in distance are ranked in this random order, since the order of names may carry information.
    drawn = np.random.default_rng(seed).permutation(len(points))
    annotated = [number for number in drawn.tolist() if len(points[number]["annotations"])]
    groups = np.unique([points[number]["group"] for number in annotated], return_inverse=True)[1]
    database = groups[:, None] != groups  # (annotated, annotated)
    if not database.any():
        return {}, {}
    table = annotation_table([points[number]["annotations"] for number in annotated])[1].astype(np.float32)
    matches = table @ table.T > 0  # (annotated, annotated)
    nearest = min(NEIGHBORS, int(database.sum(1).min()))
    metrics: dict[str, Any] = {}
    shares: dict[tuple[str, str], dict[int, float]] = {}
    for modality, of_networks in embeddings.items():
        for prefix, rows in of_networks.items():
            ranked = rank(rows[annotated], rows[annotated], database, nearest)
            neighbors = np.take_along_axis(matches, ranked, axis=1)  # (annotated, nearest)
            metrics[f"{prefix}knn_precision_{modality}"] = float(neighbors.mean())
            shares[prefix, modality] = dict(zip(annotated, neighbors.mean(1).tolist(), strict=True))
    chance = float(((matches & database).sum(1) / database.sum(1)).mean())
    return metrics | {"chance": chance, "annotated": len(annotated), "nearest": nearest}, shares


EXHIBIT = Exhibit(
    title="Embeddings",
    params=EmbeddingExhibitParams,
    make=make,
    tables=TABLES,
    metrics=(
        "points",
        "knn_precision_image",
        "knn_precision_audio",
        "modality_mixing",
        "chance",
        "annotated",
        "nearest",
    ),
)
