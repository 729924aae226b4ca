"""Embeddings: t-SNE of pictures and of sounds, each network and sense by itself, and what a map of points cannot say.

A point is the moment of a clip nearest to its middle. Beside the maps stands the share of a clip's ten nearest
neighbours, in the embedding itself and of other videos, that share an annotation with it: of the trained network, of
its controls, and of all clips of other videos, which is chance.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from earshot.core.params import Amount, SplitName
from earshot.evaluation.clips.clip_embeddings import (
    annotation_table,
    clip_names,
    clips_of_split,
    describe_clips,
    load_correspondences,
    middle_moment,
    read_all_annotations,
)
from earshot.evaluation.clips.ranking import rank
from earshot.evaluation.encoders import load_encoders
from earshot.explanation.encoders import NETWORKS, hears, why_no_towers
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
from earshot.explanation.media import smaller_jpeg
from earshot.explanation.sampling import draw_names
from earshot.explanation.tables import BYTES, INT, MOMENT, REAL, TEXT, write_table
from earshot.networks.device import on_device
from earshot.params.explain import ExhibitParams
from earshot.scenes.clips import InputSpec, SceneClip

THUMBNAIL = 64  # px
FEWEST = 5  # points
NEIGHBORS = 10
CROWDED = 3  # points for each of the perplexity's neighbours, at least (van der Maaten's code wants as many)

Embeddings = Mapping[str, Mapping[str, np.ndarray]]  # by sense and the prefix of the network, (points, dimensions)
Alike = Mapping[tuple[str, str], Mapping[int, float]]  # by prefix and sense, and by the number of a point
TABLES = {
    "embedded": pa.schema({  # a row a network, sense and moment
        "network": TEXT,
        "modality": TEXT,
        "clip_id": TEXT,
        "moment": INT,
        "x": REAL,  # t-SNE, each network and sense by itself, scaled into [0, 1]
        "y": REAL,
        "alike": REAL,  # share of its nearest by the embedding that share an annotation; null where it has none
    }),
    "embedded_moments": pa.schema({**MOMENT, "thumbnail": BYTES}),  # a row a moment; JPEG, 64 px
}  # fmt: skip


class Params(ExhibitParams):
    """Which moments, and how t-SNE lays them out."""

    split: SplitName
    points: Annotated[int, Field(ge=10)]
    perplexity: Amount


def make(context: Context) -> ExhibitResult:
    """The tables embedded and embedded_moments."""
    if hears(context.encoder) and (reason := why_no_towers(context.encoder)):
        return skipped(reason)
    points, embeddings = embed(context)
    if len(points) < FEWEST:
        return skipped(f"the split {context.params.split} has {len(points)} clips, wanted {FEWEST} or more points")
    perplexity = min(context.params.perplexity, (len(points) - 1) / CROWDED)
    write_table(context.folder, TABLES, "embedded_moments", points)
    measured, alike = measure(points, embeddings, context.seed)
    write_table(context.folder, TABLES, "embedded", place_all(points, embeddings, alike, perplexity, context.seed))
    metrics = {"points": len(points), **measured}
    told = [f"{modality} {metrics[f'knn_precision_{modality}']:.3f} (random {metrics[f'random_knn_precision_{modality}']:.3f})"
            for modality in embeddings if "chance" in metrics]  # fmt: skip
    closing = f"{len(points):,} clips of the split {context.params.split}"
    if told:
        closing += f"; neighbours that share an annotation: {', '.join(told)}; chance {metrics['chance']:.3f}"
    metadata = {"split": context.params.split, "method": f"t-SNE from PCA, perplexity {perplexity:g}"}
    return ExhibitResult(metadata | {"modalities": ", ".join(embeddings)}, metrics, closing)


def embed(context: Context) -> tuple[list[dict[str, Any]], Embeddings]:
    """The moments of at most params.points clips, as rows of embedded_moments by name; and their embeddings."""
    if hears(context.encoder):
        networks = load_correspondences(context.encoder)
        wanted, see, hear = InputSpec.by(networks[""]), _embed_images, _embed_sounds
    else:
        networks = {prefix: on_device(network) for prefix, network in load_encoders(context.encoder).items()}
        size = networks[""].image_size
        wanted = InputSpec(image_size=size, frames=1, audio_samples=0, audio_rate=1, audio_channels=1)
        see, hear = _features, None
    split, said = context.params.split, read_all_annotations(context.annotations)
    drawn = draw_names(clip_names(context.data_dir, wanted, split), context.params.points, context.seed)
    points: list[dict[str, Any]] = []
    clips = _noted(clips_of_split(context.data_dir, wanted, split, drawn), wanted, said, points)
    _, images, sounds = describe_clips(context.data_dir, clips, wanted, networks, see, hear, "embeddings")
    embeddings = {"image": images} | ({"sound": sounds} if hear else {})
    return sorted(points, key=lambda point: (point["clip_id"], point["group"])), embeddings


def _noted(
    clips: Iterable[SceneClip], wanted: InputSpec, said: Mapping[str, Sequence[str]], points: list[dict[str, Any]]
) -> Iterator[SceneClip]:
    """The clips as they pass by, each of whose moment becomes a point."""
    for clip in clips:
        number, _ = middle_moment(clip, wanted.seconds)
        points.append(
            {
                "clip_id": clip.clip_id,
                "moment": number,
                "group": clip.group,
                "annotations": said.get(clip.clip_id, ()),
                "thumbnail": smaller_jpeg(clip.frames[number], THUMBNAIL),
            }
        )
        yield clip


def _embed_images(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network.embed_images(images)


def _embed_sounds(network: Any, sounds: torch.Tensor) -> torch.Tensor:
    return network.embed_audio(sounds)


def _features(network: Any, images: torch.Tensor) -> torch.Tensor:
    last = network.probe_layers[-1]  # fc7, of AlexNet
    return network.features(images, [last])[last]


def place_all(
    points: Sequence[Mapping[str, Any]], embeddings: Embeddings, alike: Alike, perplexity: float, seed: int
) -> Iterator[dict[str, Any]]:
    """Where the points of each network and sense lie, by network and sense."""
    for prefix in embeddings["image"]:
        for modality, of_networks in embeddings.items():
            shares = alike.get((prefix, modality), {})
            places = place(of_networks[prefix], perplexity, seed).tolist()
            for number, (point, (x, y)) in enumerate(zip(points, places, strict=True)):
                named = {name: point[name] for name in ("clip_id", "moment")}
                named |= {"network": NETWORKS[prefix], "modality": modality}
                yield {**named, "x": x, "y": y, "alike": shares.get(number)}


def place(embeddings: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    """t-SNE of embeddings (points, dimensions), within the unit square and as wide as it or as high: (points, 2).

    Where embeddings differ in nothing, or in one dimension, it begins at random places and not with PCA.
    """
    rows = embeddings.astype(np.float64)
    flat = rows.shape[1] < 2 or np.linalg.matrix_rank(rows - rows.mean(0)) < 2
    tsne = TSNE(perplexity=perplexity, init="random" if flat else "pca", random_state=seed, n_jobs=1)
    with threadpool_limits(1):  # sums, and so places, depend on the number of threads
        places = tsne.fit_transform(rows)
    middle = (places.max(0) + places.min(0)) / 2
    return (places - middle) / max(np.ptp(places, axis=0).max(), np.finfo(float).tiny) + 0.5


def measure(
    points: Sequence[Mapping[str, Any]], embeddings: Embeddings, seed: int
) -> tuple[dict[str, Any], dict[tuple[str, str], dict[int, float]]]:
    """By network and sense the share of neighbours that share an annotation, and that of each point by its number.

    Nothing where nothing was said.
    """
    # Neighbours at the same distance are found in this order: drawn, since that of their names may tell.
    drawn = np.random.default_rng(seed).permutation(len(points))
    annotated = [place for place in drawn.tolist() if len(points[place]["annotations"])]
    groups = np.unique([points[place]["group"] for place in annotated], return_inverse=True)[1]
    database = groups[:, None] != groups  # (annotated, annotated)
    if not database.any():
        return {}, {}
    table = annotation_table([points[place]["annotations"] for place in annotated])[1].astype(np.float32)
    alike = table @ table.T > 0  # (annotated, annotated)
    nearest = min(NEIGHBORS, int(database.sum(1).min()))
    metrics: dict[str, Any] = {}
    shares: dict[tuple[str, str], dict[int, float]] = {}
    for modality, of_networks in embeddings.items():
        for prefix, rows in of_networks.items():
            found = rank(rows[annotated], rows[annotated], database, nearest)
            neighbors = np.take_along_axis(alike, found, axis=1)  # (annotated, nearest)
            metrics[f"{prefix}knn_precision_{modality}"] = float(neighbors.mean())
            shares[prefix, modality] = dict(zip(annotated, neighbors.mean(1).tolist(), strict=True))
    chance = float(((alike & database).sum(1) / database.sum(1)).mean())
    return metrics | {"chance": chance, "annotated": len(annotated), "nearest": nearest}, shares


EXHIBIT = Exhibit(
    title="Embeddings",
    params=Params,
    make=make,
    tables=TABLES,
    metrics=("points", "knn_precision_image", "knn_precision_audio", "chance", "annotated", "nearest"),
)
