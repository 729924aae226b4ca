"""Clusters: the moments nearest to the centroid of each label, and what the centroid says of sound.

One pass over the labels counts, and keeps the nearest moments of each cluster, one a group (as Owens et al. 2016 show
one a video); one pass over the scenes then draws them. In memory are the clusters and what is shown of them.

Purity is the share of moments whose clip has the annotation that is most frequent in their cluster. Beside it stands
that of clusters of the same sizes in which every clip has the annotations of a clip that is drawn: its moments stay
together, as they do where nothing was learned.
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
from earshot.core.params import Count, Positive
from earshot.core.parquet import open_parquet
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
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

FREQUENT = 5  # annotations that are told of a cluster
PERMUTATIONS = 5  # of annotations, of which the mean purity is told
COLUMNS = ["clip_id", "moment", "group", "split", "label", "kept", "distance", "wrong_sound_label"]
CHARTS = ("mean", "spread", "correlation", "modulation", "frequencies", "rates")  # of a centroid of textures
COCHLEAGRAM = "32 channels from 20 Hz to 10 kHz; white is the level that one value in a hundred exceeds"

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
TABLES = {
    "clusters": pa.schema({
        "cluster": INT,
        "moments": INT,
        "trained_on": INT,  # of the training split, and kept
        "annotations": TEXTS,  # the most frequent of its clips
        "shares": NUMBERS,  # of its moments, that have each
        "mean": NUMBERS,  # 32, of the centroid's envelopes, by channel; of textures, as the following; else empty
        "spread": NUMBERS,  # relative
        "correlation": NUMBERS,  # 32 x 32, row after row, NaN where a texture has none
        "modulation": NUMBERS,  # 32 x 10, row after row: power of each channel
        "frequencies": NUMBERS,  # 32, Hz, of the channels
        "rates": NUMBERS,  # 10, Hz, of the modulation
        "centroid": NUMBERS,  # of any descriptor, before scaling
    }),
    "cluster_moments": pa.schema({  # the nearest to each centroid, one a group, by cluster and rank
        "cluster": INT,
        "rank": INT,
        **MOMENT,
        "distance": REAL,
        "frame": BYTES,
        "cochleagram": BYTES,  # PNG of 32 channels, low at the bottom, over the whole sound
        "sound": BYTES,  # empty where only the picture is shown
        "seconds": REAL,
    }),
}  # fmt: skip


class Params(ExhibitParams):
    """How much is shown of each cluster."""

    examples: Positive
    audio_examples: Count


@dataclass(order=True, frozen=True)
class Near:
    """A moment and how far it is from its centroid; of equally far ones the first by name is the nearer."""

    distance: float
    clip_id: str
    moment: int
    group: str
    annotations: Sequence[str] = field(compare=False)


@dataclass
class Cluster:
    """What a pass over the labels finds of one; `annotated` counts moments of clips of which something was said."""

    moments: int = 0
    trained_on: int = 0
    annotated: int = 0
    annotations: Counter[str] = field(default_factory=Counter)
    deranged: list[Counter[str]] = field(default_factory=lambda: [Counter() for _ in range(PERMUTATIONS)])
    nearest: dict[str, Near] = field(default_factory=dict)  # by group

    def add(self, found: Near, trained_on: bool, deranged: Sequence[Sequence[str]], examples: int) -> None:
        """Count a moment, with what was said of clips in place of its own, and keep it if it is among the nearest."""
        self.moments += 1
        self.trained_on += trained_on
        self.annotated += bool(found.annotations)
        self.annotations.update(set(found.annotations))
        for counts, said in zip(self.deranged, deranged, strict=False):
            counts.update(said)
        if found.group not in self.nearest or found < self.nearest[found.group]:
            self.nearest[found.group] = found
            if len(self.nearest) > examples:
                del self.nearest[max(self.nearest.values()).group]

    def examples(self) -> list[Near]:
        """The moments that were kept, the nearest first."""
        return sorted(self.nearest.values())


def make(context: Context) -> ExhibitResult:
    """The tables clusters and cluster_moments."""
    labeler, description = load_labeler(context.encoder), load_description(context.encoder)
    metadata, centroids = labeler.metadata, labeler.centroids
    if centroids is None:
        return skipped(f"labels of the model {metadata['model']} have no centroid")
    if is_deranged(context.data_dir):
        return skipped("labels are those of other groups' sounds (label.control), which no centroid is near to")
    clusters, silent = count(context, labeler.values)
    heard = description if metadata["descriptor"] == description.name else None
    write_table(context.folder, TABLES, "clusters", cluster_rows(clusters, centroids, heard))
    write_table(context.folder, TABLES, "cluster_moments", moment_rows(clusters, context, description))
    metrics = measure(clusters)
    closing = f"{len(clusters)} clusters of {metadata['descriptor']}, {metrics['empty_clusters']} of them empty"
    if "purity" in metrics:
        closing += f"; purity {metrics['purity']:.3f} (chance {metrics['chance']:.3f})"
    told = {"labels": metadata["model"], "clusters_of": labeler.label_model.clusters_of}
    told |= {"descriptor": metadata["descriptor"], "silent": silent, "cochleagram": COCHLEAGRAM}
    return ExhibitResult(told, metrics, closing)


def is_deranged(data_dir: Path) -> bool:
    """Whether all labels are the wrong-sound control's."""
    return all(
        pc.all(pc.equal(batch["label"], batch["wrong_sound_label"]), min_count=0).as_py()
        for shard in shard_paths(data_dir, ".parquet")
        for batch in _batches(shard, ["label", "wrong_sound_label"])
    )


def count(context: Context, clusters: int) -> tuple[list[Cluster], int]:
    """All clusters, and how many moments are silent and in none.

    Raises EarshotError where labels, labeler and annotations are not of one run.
    """
    found, silent = [Cluster() for _ in range(clusters)], 0
    shards, annotations = (shard_paths(folder, ".parquet") for folder in (context.data_dir, context.annotations))
    if len(shards) != len(annotations):
        told = f"{len(shards)} shards, but {context.annotations} has {len(annotations)}"
        raise EarshotError(f"{context.data_dir}: has {told}; run the stage label again")
    frequent = frequent_sets(annotations)
    for number, (shard, said) in enumerate(zip(shards, map(read_annotations, annotations), strict=True)):
        deranged = deal(said, frequent, [context.seed, number])
        for batch in _batches(shard, COLUMNS):
            for clip_id, moment, group, split, label, kept, distance in _rows(batch, COLUMNS[:-1]):
                if label == SILENT:
                    silent += 1
                    continue
                if label >= clusters:
                    told = f"label {label}, but {context.encoder} has {clusters} clusters"
                    raise EarshotError(f"{shard}: holds {told}; run the stage label again")
                near = Near(distance, clip_id, moment, group, said.get(clip_id, ()))
                trained_on = kept and split == TRAINING
                found[label].add(near, trained_on, deranged.get(clip_id, ()), context.params.examples)
    return found, silent


def _batches(shard: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with open_parquet(shard, columns, "label") as file:
        yield from file.iter_batches(columns=columns, use_threads=False)


def _rows(batch: pa.RecordBatch, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    return zip(*(batch[name].to_pylist() for name in columns), strict=True)


def frequent_sets(annotations: Sequence[Path]) -> Counter[tuple[str, ...]]:
    """How many clips have each set of annotations; those of which nothing was said are left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for shard in annotations:
        found.update(tuple(sorted(set(said))) for said in read_annotations(shard).values() if said)
    return found


def deal(
    said: Annotations, frequent: Counter[tuple[str, ...]], seed: Sequence[int]
) -> dict[str, list[tuple[str, ...]]]:
    """For every annotated clip DEALS sets of annotations, each drawn as often as clips have it."""
    sets, clips = sorted(frequent), [clip for clip, words in said.items() if words]
    if not clips:
        return {}
    shares = np.array([frequent[each] for each in sets]) / frequent.total()
    drawn = np.random.default_rng(seed).choice(len(sets), (len(clips), PERMUTATIONS), p=shares)
    return {clip: [sets[number] for number in row] for clip, row in zip(clips, drawn.tolist(), strict=True)}


def measure(clusters: Sequence[Cluster]) -> dict[str, Any]:
    """How large the clusters are, and how pure, where anything was said of their clips."""
    sizes = np.array([cluster.moments for cluster in clusters])
    shares = sizes / max(sizes.sum(), 1)
    metrics = {
        "clusters": len(clusters),
        "empty_clusters": int((sizes == 0).sum()),
        "moments": int(sizes.sum()),
        "smallest_share": float(shares.min()),
        "largest_share": float(shares.max()),
    }
    annotated = sum(cluster.annotated for cluster in clusters)
    if not annotated:
        return metrics
    own = _most([cluster.annotations for cluster in clusters])
    deranged = [_most(counts) for counts in zip(*(cluster.deranged for cluster in clusters), strict=True)]
    return metrics | {"purity": own / annotated, "chance": float(np.mean(deranged)) / annotated}


def _most(counts: Sequence[Counter[str]]) -> int:
    return sum(max(each.values(), default=0) for each in counts)


def cluster_rows(
    clusters: Sequence[Cluster], centroids: np.ndarray, description: Description | None
) -> Iterator[dict[str, Any]]:
    """A row a cluster, with its centroid and, where that is a descriptor of sound, what it says of sound."""
    for number, (cluster, centroid) in enumerate(zip(clusters, centroids, strict=True)):
        # Of equally frequent ones the first by name.
        frequent = sorted(cluster.annotations.items(), key=lambda pair: (-pair[1], pair[0]))[:FREQUENT]
        yield {
            "cluster": number,
            "moments": cluster.moments,
            "trained_on": cluster.trained_on,
            "annotations": [name for name, _ in frequent],
            "shares": [moments / cluster.moments for _, moments in frequent],
            "centroid": centroid,
            **dict.fromkeys(CHARTS, []),
            **(description.charts(centroid) if description else {}),
        }


def moment_rows(clusters: Sequence[Cluster], context: Context, description: Description) -> Iterator[dict[str, Any]]:
    """The nearest moments of all clusters, drawn, by cluster and rank, from 1 on."""
    wanted = defaultdict(list)  # by clip
    for number, cluster in enumerate(clusters):
        for rank, near in enumerate(cluster.examples(), 1):
            wanted[near.clip_id].append((number, rank, near))
    drawn = {}
    for clip in SceneTable(context.scenes).clips(wanted, ["clip_id", "frames", "times", "sound"]):
        for number, rank, near in wanted[clip["clip_id"]]:
            drawn[number, rank] = {
                "cluster": number,
                "rank": rank,
                "clip_id": near.clip_id,
                "moment": near.moment,
                "group": near.group,
                "annotations": near.annotations,
                "distance": near.distance,
                **draw_moment(clip, near.moment, context, description, heard=rank <= context.params.audio_examples),
            }
    yield from (drawn[place] for place in sorted(drawn))


def draw_moment(
    clip: Mapping[str, Any], moment: int, context: Context, description: Description, heard: bool
) -> dict[str, Any]:
    """The frame of a moment, the cochleagram of the sound around it, and where `heard` that sound."""
    try:
        sound, rate = clip_sound(clip["clip_id"], clip["sound"])
    except EarshotError as error:
        raise EarshotError(f"{context.scenes}: {error}") from None
    windows, _ = cut_windows(sound, rate, np.array([clip["times"][moment]]), context.window_s)
    seconds = windows.shape[1] / rate
    envelopes = description.cochleagrams(windows, rate)[0]  # of 3.75 s: shorter sounds are repeated
    return {
        "frame": smaller_jpeg(clip["frames"][moment]),
        "cochleagram": cochleagram_png(envelopes[:, : round(seconds * ENVELOPE_RATE)]),
        "sound": mp3_of(windows[0], rate) if heard else b"",
        "seconds": seconds if heard else 0.0,
    }


EXHIBIT = Exhibit(
    title="Clusters",
    params=Params,
    make=make,
    tables=TABLES,
    metrics=(
        "clusters",
        "empty_clusters",
        "moments",
        "smallest_share",
        "largest_share",
        "purity",
        "chance",
    ),
)
