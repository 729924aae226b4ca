"""Clusters: the moments nearest to the centroid of each label, and the centroid as a sound texture.

One pass over the labels counts moments and keeps the nearest ones of each cluster, one per group (Owens et al. 2016,
Figure 2, show one per video, of the test set). One pass over the scenes then draws them. Memory holds the clusters and
their displayed moments.

Purity is the share of moments whose clip has the most frequent annotation of their cluster. Its chance level uses
clusters of the same sizes, with the annotations of a randomly drawn clip in place of each clip's own. All moments of a
clip get the same draw. Each split has its own purity: clustering is fitted to the training moments. Only moments of
`split` are displayed, and only their annotations describe a cluster.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from earshot.core.errors import EarshotError
from earshot.core.files import shard_paths
from earshot.core.params import Count, Positive, SplitName
from earshot.core.parquet import open_parquet
from earshot.corpus.split import SPLITS
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
from earshot.explanation.media import cochleagram_png, mp3_of, smaller_jpeg
from earshot.explanation.tables import BYTES, INT, MOMENT, NUMBERS, REAL, TEXTS, write_table
from earshot.labels.labeler import load_labeler
from earshot.labels.table import SILENT, TRAINING
from earshot.params.explain import ExhibitParams
from earshot.scenes.annotations import read_annotations
from earshot.scenes.audio_slices import clip_sound
from earshot.scenes.table import SceneTable
from earshot.sound.cochlea import ENVELOPE_RATE
from earshot.sound.description import Description, load_description
from earshot.sound.windows import cut_windows

FREQUENT = 5  # annotations listed for a cluster
PERMUTATIONS = 5  # draws of annotations, averaged for chance
COLUMNS = ["clip_id", "moment", "group", "split", "label", "kept", "distance", "wrong_sound_label"]
CHARTS = ("mean", "spread", "correlation", "modulation", "frequencies", "rates")  # of a centroid of textures
COCHLEAGRAM = "32 channels from 20 Hz to 10 kHz; white: the level that 1 % of the values exceed"

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
TABLES = {
    "clusters": pa.schema({
        "cluster": INT,
        "moments": INT,  # of all splits
        "trained_on": INT,  # moments of the training split that were kept
        "split_moments": INT,  # of the exhibit's split
        "annotations": TEXTS,  # the most frequent ones of the split's clips
        "shares": NUMBERS,  # of the split's moments, for each annotation
        "mean": NUMBERS,  # 32, of the centroid's envelopes by channel; this and the next five: empty unless a texture
        "spread": NUMBERS,  # relative
        "correlation": NUMBERS,  # 32 x 32, row by row, NaN where a texture has none
        "modulation": NUMBERS,  # 32 x 10, row by row: power of each channel
        "frequencies": NUMBERS,  # 32, Hz, of the channels
        "rates": NUMBERS,  # 10, Hz, of the modulation
        "centroid": NUMBERS,  # of any descriptor, before scaling
    }),
    "cluster_moments": pa.schema({  # the nearest to each centroid, one per group, by cluster and rank
        "cluster": INT,
        "rank": INT,
        **MOMENT,
        "distance": REAL,
        "frame": BYTES,
        "cochleagram": BYTES,  # PNG of 32 channels, low at the bottom, over the whole sound
        "sound": BYTES,  # empty where only the images are displayed
        "seconds": REAL,
    }),
}  # fmt: skip


class ClusterExhibitParams(ExhibitParams):
    """The split of the displayed moments, and how many to display of each cluster."""

    split: SplitName
    examples: Positive
    audio_examples: Count


@dataclass(order=True, frozen=True)
class Neighbor:
    """A moment and its distance from its centroid; ties are ordered by name."""

    distance: float
    clip_id: str
    moment: int
    group: str
    annotations: Sequence[str] = field(compare=False)


@dataclass
class ClusterCounts:
    """What a pass over the labels counts for one cluster in one split; `annotated`: moments of annotated clips."""

    moments: int = 0
    trained_on: int = 0
    annotated: int = 0
    annotations: Counter[str] = field(default_factory=Counter)
    drawn: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(PERMUTATIONS)])
    nearest: dict[str, Neighbor] = field(default_factory=dict)  # by group

    def add(self, neighbor: Neighbor, trained_on: bool, drawn: Sequence[Sequence[str]], examples: int) -> None:
        """Count a moment with its annotations and its random draws of them; keep it if it is among the nearest."""
        self.moments += 1
        self.trained_on += trained_on
        self.annotated += bool(neighbor.annotations)
        self.annotations.update(set(neighbor.annotations))
        for counts, annotations in zip(self.drawn, drawn, strict=False):
            counts.update(annotations)
        if neighbor.group not in self.nearest or neighbor < self.nearest[neighbor.group]:
            self.nearest[neighbor.group] = neighbor
            if len(self.nearest) > examples:
                del self.nearest[max(self.nearest.values()).group]

    def examples(self) -> list[Neighbor]:
        """The kept moments, nearest first."""
        return sorted(self.nearest.values())


Splits = Mapping[str, Sequence[ClusterCounts]]  # the clusters in each split


def make(context: ExhibitContext) -> ExhibitResult:
    """The tables clusters and cluster_moments."""
    labeler, description = load_labeler(context.encoder), load_description(context.encoder)
    metadata, centroids = labeler.metadata, labeler.centroids
    if centroids is None:
        return skipped(f"labels of the model {metadata['model']} have no centroid")
    if is_deranged(context.data_dir):
        return skipped("the labels come from the sounds of other groups (label.control), so no centroid describes them")
    clusters, silent = count(context, labeler.values)
    sound_description = description if metadata["descriptor"] == description.name else None
    split = context.params.split
    write_table(context.folder, TABLES, "clusters", cluster_rows(clusters, split, centroids, sound_description))
    write_table(context.folder, TABLES, "cluster_moments", moment_rows(clusters[split], context, description))
    metrics = measure(clusters, split)
    closing = f"{labeler.values} clusters of {metadata['descriptor']}, {metrics['empty_clusters']} of them empty"
    if "purity" in metrics:
        closing += f"; purity of the split {split} {metrics['purity']:.3f} (chance {metrics['chance']:.3f})"
    summary = {"labels": metadata["model"], "clusters_of": labeler.label_model.clusters_of, "split": split}
    summary |= {"descriptor": metadata["descriptor"], "silent": silent, "cochleagram": COCHLEAGRAM}
    return ExhibitResult(summary, metrics, closing)


def is_deranged(data_dir: Path) -> bool:
    """Whether all labels are those of the wrong-sound control."""
    return all(
        pc.all(pc.equal(batch["label"], batch["wrong_sound_label"]), min_count=0).as_py()
        for shard in shard_paths(data_dir, ".parquet")
        for batch in _batches(shard, ["label", "wrong_sound_label"])
    )


def count(context: ExhibitContext, clusters: int) -> tuple[Splits, int]:
    """All clusters in each split, and the number of silent moments, which are in no cluster.

    Raises EarshotError if labels, labeler and annotations come from different runs.
    """
    counted, silent = {split: [ClusterCounts() for _ in range(clusters)] for split in SPLITS}, 0
    shards, annotation_shards = (shard_paths(folder, ".parquet") for folder in (context.data_dir, context.annotations))
    if len(shards) != len(annotation_shards):
        message = f"has {len(shards)} shards, but {context.annotations} has {len(annotation_shards)}"
        raise EarshotError(f"{context.data_dir}: {message}; run the stage label again")
    frequent = frequent_sets(annotation_shards)
    for number, (shard, annotations) in enumerate(zip(shards, map(read_annotations, annotation_shards), strict=True)):
        drawn = draw_annotations(annotations, frequent, [context.seed, number])
        for batch in _batches(shard, COLUMNS):
            for clip_id, moment, group, split, label, kept, distance in _rows(batch, COLUMNS[:-1]):
                if label == SILENT:
                    silent += 1
                    continue
                if label >= clusters:
                    message = f"has label {label}, but {context.encoder} has {clusters} clusters"
                    raise EarshotError(f"{shard}: {message}; run the stage label again")
                neighbor = Neighbor(distance, clip_id, moment, group, annotations.get(clip_id, ()))
                trained_on = kept and split == TRAINING
                counted[split][label].add(neighbor, trained_on, drawn.get(clip_id, ()), context.params.examples)
    return counted, silent


def _batches(shard: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with open_parquet(shard, columns, "label") as file:
        yield from file.iter_batches(columns=columns, use_threads=False)


def _rows(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(batch[name].to_pylist() for name in columns), strict=True)


def frequent_sets(annotation_shards: Sequence[Path]) -> Counter[tuple[str, ...]]:
    """The number of clips with each set of annotations; clips without annotations are left out."""
    counts: Counter[tuple[str, ...]] = Counter()
    for shard in annotation_shards:
        counts.update(
            tuple(sorted(set(annotations))) for annotations in read_annotations(shard).values() if annotations
        )
    return counts


def draw_annotations(
    annotations: Annotations, frequent: Counter[tuple[str, ...]], seed: Sequence[int]
) -> dict[str, list[tuple[str, ...]]]:
    """For every annotated clip, PERMUTATIONS sets of annotations, drawn by their frequency among clips."""
    sets, clips = sorted(frequent), [clip for clip, words in annotations.items() if words]
    if not clips:
        return {}
    shares = np.array([frequent[each] for each in sets]) / frequent.total()
    drawn = np.random.default_rng(seed).choice(len(sets), (len(clips), PERMUTATIONS), p=shares)
    return {clip: [sets[number] for number in row] for clip, row in zip(clips, drawn.tolist(), strict=True)}


def measure(clusters: Splits, split: str) -> dict[str, Any]:
    """The sizes of the clusters and, if clips are annotated, their purity: that of `split` without a prefix."""
    sizes = np.sum([[cluster.moments for cluster in each] for each in clusters.values()], axis=0)
    shares = sizes / max(sizes.sum(), 1)
    metrics = {
        "clusters": len(sizes),
        "empty_clusters": int((sizes == 0).sum()),
        "moments": int(sizes.sum()),
        "smallest_share": float(shares.min()),
        "largest_share": float(shares.max()),
    }
    for name, each in clusters.items():
        prefix = "" if name == split else f"{name}_"
        metrics |= {f"{prefix}{metric}": value for metric, value in purity(each).items()}
    return metrics


def purity(clusters: Sequence[ClusterCounts]) -> dict[str, float]:
    """The purity of clusters in one split and its chance level; nothing if no clip is annotated."""
    annotated = sum(cluster.annotated for cluster in clusters)
    if not annotated:
        return {}
    own = _most([cluster.annotations for cluster in clusters])
    drawn = [_most(counts) for counts in zip(*(cluster.drawn for cluster in clusters), strict=True)]
    return {"purity": own / annotated, "chance": float(np.mean(drawn)) / annotated}


def _most(counts: Sequence[Counter[str]]) -> int:
    return sum(max(each.values(), default=0) for each in counts)


def cluster_rows(
    clusters: Splits, split: str, centroids: np.ndarray, description: Description | None
) -> Iterator[dict[str, Any]]:
    """One row per cluster, with its centroid and, if that is a sound texture, its charts."""
    for number, (cluster, centroid) in enumerate(zip(clusters[split], centroids, strict=True)):
        # Ties are ordered by name.
        frequent = sorted(cluster.annotations.items(), key=lambda pair: (-pair[1], pair[0]))[:FREQUENT]
        yield {
            "cluster": number,
            "moments": sum(each[number].moments for each in clusters.values()),
            "trained_on": clusters[TRAINING][number].trained_on,
            "split_moments": cluster.moments,
            "annotations": [name for name, _ in frequent],
            "shares": [moments / cluster.moments for _, moments in frequent],
            "centroid": centroid,
            **dict.fromkeys(CHARTS, []),
            **(description.charts(centroid) if description else {}),
        }


def moment_rows(
    clusters: Sequence[ClusterCounts], context: ExhibitContext, description: Description
) -> Iterator[dict[str, Any]]:
    """The nearest moments of all clusters as images and sound, by cluster and rank (from 1)."""
    requested = defaultdict(list)  # by clip
    for number, cluster in enumerate(clusters):
        for rank, neighbor in enumerate(cluster.examples(), 1):
            requested[neighbor.clip_id].append((number, rank, neighbor))
    drawn = {}
    for clip in SceneTable(context.scenes).clips(requested, ["clip_id", "frames", "times", "sound"]):
        for number, rank, neighbor in requested[clip["clip_id"]]:
            drawn[number, rank] = {
                "cluster": number,
                "rank": rank,
                "clip_id": neighbor.clip_id,
                "moment": neighbor.moment,
                "group": neighbor.group,
                "annotations": neighbor.annotations,
                "distance": neighbor.distance,
                **draw_moment(
                    clip, neighbor.moment, context, description, with_sound=rank <= context.params.audio_examples
                ),
            }
    yield from (drawn[place] for place in sorted(drawn))


def draw_moment(
    clip: Mapping[str, Any], moment: int, context: ExhibitContext, description: Description, with_sound: bool
) -> dict[str, Any]:
    """The frame of a moment, the cochleagram of the sound around it, and, if `with_sound`, that sound."""
    try:
        sound, rate = clip_sound(clip["clip_id"], clip["sound"])
    except EarshotError as error:
        raise EarshotError(f"{context.scenes}: {error}") from None
    windows, _ = cut_windows(sound, rate, np.array([clip["times"][moment]]), context.window_s)
    seconds = windows.shape[1] / rate
    envelopes = description.cochleagrams(windows, rate)[0]  # 3.75 s long: shorter sounds are repeated
    return {
        "frame": smaller_jpeg(clip["frames"][moment]),
        "cochleagram": cochleagram_png(envelopes[:, : round(seconds * ENVELOPE_RATE)]),
        "sound": mp3_of(windows[0], rate) if with_sound else b"",
        "seconds": seconds if with_sound else 0.0,
    }


EXHIBIT = Exhibit(
    title="Clusters",
    params=ClusterExhibitParams,
    make=make,
    tables=TABLES,
    metrics=(
        "clusters",
        "empty_clusters",
        "moments",
        "smallest_share",
        "largest_share",
        *(f"{prefix}{name}" for prefix in ("", *(f"{split}_" for split in SPLITS)) for name in ("purity", "chance")),
    ),
)
