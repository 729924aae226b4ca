"""Retrieval: the nearest clips to some clips, across and within modalities (Kim 2020, section 4.2).

As in the benchmark, one moment of each annotated clip of the split is an entry of the database. A query ranks the
entries of other videos by the distance of embeddings. The gain of a result is max(C - d, 0) / C, where d is the
distance in the ontology and C the largest such distance.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from earshot.core.params import Positive, SplitName
from earshot.corpus.ontology import Ontology
from earshot.evaluation.clips.clip_embeddings import (
    clips_of_split,
    describe_clips,
    load_correspondences,
    middle_moment,
    read_all_annotations,
)
from earshot.evaluation.clips.ranking import DIRECTIONS, clip_distances, rank, read_ontology_of
from earshot.explanation.encoders import NETWORKS, why_no_towers
from earshot.explanation.exhibit import Exhibit, ExhibitContext, ExhibitResult, skipped
from earshot.explanation.media import mp3_of, smaller_jpeg, spectrogram_png
from earshot.explanation.sampling import draw_evenly
from earshot.explanation.tables import BYTES, INT, REAL, TEXT, TEXTS, write_table
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.spectrogram import RATE, SAMPLES, SECONDS, Spectrogram
from earshot.params.explain import ExhibitParams
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.clips import InputSpec

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
TABLES = {
    "retrieval_results": pa.schema({  # by network, direction, query and rank
        "network": TEXT,
        "direction": TEXT,  # image-to-audio, audio-to-image, image-to-image, audio-to-audio
        "query": TEXT,
        "rank": INT,
        "result": TEXT,
        "gain": REAL,  # as in the benchmark retrieval, over the largest
    }),
    "retrieval_clips": pa.schema({  # one row per clip that is a query or a result
        "clip_id": TEXT,
        "group": TEXT,
        "annotations": TEXTS,
        "frame": BYTES,
        "spectrogram": BYTES,
        "sound": BYTES,
    }),
}  # fmt: skip


class RetrievalExhibitParams(ExhibitParams):
    """The number of queries, and of results for each."""

    split: SplitName
    queries: Positive
    results: Positive


def make(context: ExhibitContext) -> ExhibitResult:
    """The tables retrieval_results and retrieval_clips."""
    if reason := why_no_towers(context.encoder):
        return skipped(reason)
    networks, annotations = load_correspondences(context.encoder), read_all_annotations(context.annotations)
    spec = InputSpec.by(networks[""])
    names, embeddings = embed(context, networks, spec, annotations)
    if len({group for _, group in names}) < 2:
        return skipped(f"the split {context.params.split} has annotated clips of fewer than two videos")
    queries = draw_evenly([annotations[clip][0] for clip, _ in names], context.params.queries, context.seed)
    ontology = read_ontology_of(context.annotations, [annotations[clip] for clip, _ in names])
    rows = with_gains(list(retrieve(names, embeddings, queries, context.params.results)), ontology, annotations)
    write_table(context.folder, TABLES, "retrieval_results", rows)
    displayed = {row[role] for row in rows for role in ("query", "result")}
    write_table(context.folder, TABLES, "retrieval_clips", clip_rows(context, spec, annotations, displayed))
    metrics = {
        "queries": len(queries),
        "clips": len(names),
        "clips_displayed": len(displayed),
        "C": ontology.diameter(),
    }
    closing = f"{len(queries)} queries among {len(names):,} clips of the split {context.params.split}"
    return ExhibitResult({"split": context.params.split, "gain": "max(C - d, 0) / C"}, metrics, closing)


def embed(
    context: ExhibitContext, networks: Mapping[str, Correspondence], spec: InputSpec, annotations: Annotations
) -> tuple[list[tuple[str, str]], dict[str, dict[str, np.ndarray]]]:
    """Clips and groups of the database, in the random order that breaks ties, as in the benchmark; and their embeddings
    by modality and network, (clips, dimensions).
    """
    clips = clips_of_split(context.data_dir, spec, context.params.split)
    names, images, audio = describe_clips(
        context.data_dir,
        (clip for clip in clips if annotations.get(clip.clip_id)),
        spec,
        networks,
        lambda network, images: network.embed_images(images),
        lambda network, audio: network.embed_audio(audio),
        "retrieval",
    )
    drawn = np.random.default_rng(context.seed).permutation(len(names))
    embeddings = {
        modality: {prefix: rows[drawn] for prefix, rows in each.items()}
        for modality, each in (("image", images), ("audio", audio))
    }
    return [names[number] for number in drawn], embeddings


def retrieve(
    names: Sequence[tuple[str, str]],
    embeddings: Mapping[str, Mapping[str, np.ndarray]],
    queries: Sequence[int],
    results: int,
) -> Iterator[dict[str, Any]]:
    """The nearest clips of other videos to each query, by network, direction, query and rank (from 1).

    Args:
        names: clip and group of each entry of the database.
        embeddings: by modality and network, (entries, dimensions).
        queries: numbers of entries.
        results: the maximum number per query; all queries have the same number.
    """
    groups = np.unique([group for _, group in names], return_inverse=True)[1]
    database = groups[queries][:, None] != groups  # (queries, entries)
    results = min(results, int(database.sum(1).min()))
    for prefix, (query_modality, result_modality) in product(embeddings["image"], DIRECTIONS):
        ranked = rank(
            embeddings[query_modality][prefix][queries], embeddings[result_modality][prefix], database, results
        )
        for query, nearest in zip(queries, ranked.tolist(), strict=True):
            for position, entry in enumerate(nearest, 1):
                yield {
                    "network": NETWORKS[prefix],
                    "direction": f"{query_modality}-to-{result_modality}",
                    "query": names[query][0],
                    "rank": position,
                    "result": names[entry][0],
                }


def with_gains(rows: Sequence[dict[str, Any]], ontology: Ontology, annotations: Annotations) -> list[dict[str, Any]]:
    """The rows with the gain of each result: 1 for a clip of the query's own class.

    Raises EarshotError for an annotation that is not a class of the ontology.
    """
    clips = sorted({row[role] for row in rows for role in ("query", "result")})
    index = {clip: number for number, clip in enumerate(clips)}
    farthest = max(ontology.diameter(), 1)
    distances = np.stack(list(clip_distances(ontology, [annotations[clip] for clip in clips])))
    gains = np.maximum(1 - distances / farthest, 0)
    return [row | {"gain": float(gains[index[row["query"]], index[row["result"]]])} for row in rows]


@torch.inference_mode()
def clip_rows(
    context: ExhibitContext, spec: InputSpec, annotations: Annotations, displayed: Container[str]
) -> Iterator[dict[str, Any]]:
    """The displayed clips: the frame and the second of sound that were embedded."""
    spectrogram = Spectrogram()
    for clip in clips_of_split(context.data_dir, spec, context.params.split, displayed):
        number, start = middle_moment(clip, SECONDS)
        sound = sound_slice(clip.sound, start, samples=SAMPLES, rate=RATE, channels=1)
        yield {
            "clip_id": clip.clip_id,
            "group": clip.group,
            "annotations": annotations[clip.clip_id],
            "frame": smaller_jpeg(clip.frames[number]),
            "spectrogram": spectrogram_png(spectrogram(torch.from_numpy(sound)[None])[0, 0].numpy()),
            "sound": mp3_of(sound, RATE),
        }


EXHIBIT = Exhibit(
    title="Retrieval",
    params=RetrievalExhibitParams,
    make=make,
    tables=TABLES,
    metrics=("queries", "clips", "clips_displayed", "C"),
)
