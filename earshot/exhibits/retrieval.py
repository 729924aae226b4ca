"""Retrieval: the nearest clips to some clips, across and within the senses (Kim 2020, section 4.2).

As in the benchmark, one moment of each annotated clip of the split is an entry of the database, which is ranked by the
distance of embeddings without the query's own video; the gain of a result is max(C - d, 0) of the ontology's distance
d, here over the largest, C.
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
from earshot.explanation.exhibit import Context, Exhibit, ExhibitResult, skipped
from earshot.explanation.media import mp3_of, smaller_jpeg, spectrogram_png
from earshot.explanation.sampling import draw_evenly
from earshot.explanation.tables import BYTES, INT, REAL, TEXT, TEXTS, write_table
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.spectrogram import RATE, SAMPLES, SECONDS, Spectrogram
from earshot.params.explain import ExhibitParams
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.clips import InputSpec

COMPARED = ("", "random_")  # networks, by the prefix of their metrics

Annotations = Mapping[str, Sequence[str]]  # annotations by clip
TABLES = {
    "retrieved": pa.schema({  # by network, direction, query and rank
        "network": TEXT,
        "direction": TEXT,  # picture-to-sound, sound-to-picture, picture-to-picture, sound-to-sound
        "query": TEXT,
        "rank": INT,
        "result": TEXT,
        "gain": REAL,  # of the ontology's distance, as the benchmark retrieval counts it, over the largest
    }),
    "retrieval_clips": pa.schema({  # a row a clip that is a query or a result
        "clip_id": TEXT,
        "group": TEXT,
        "annotations": TEXTS,
        "frame": BYTES,
        "spectrogram": BYTES,
        "sound": BYTES,
    }),
}  # fmt: skip


class Params(ExhibitParams):
    """How many queries, and results of each."""

    split: SplitName
    queries: Positive
    results: Positive


def make(context: Context) -> ExhibitResult:
    """The tables retrieved and retrieval_clips."""
    if reason := why_no_towers(context.encoder):
        return skipped(reason)
    loaded = load_correspondences(context.encoder)
    networks, said = {prefix: loaded[prefix] for prefix in COMPARED}, read_all_annotations(context.annotations)
    wanted = InputSpec.by(networks[""])
    names, embeddings = embed(context, networks, wanted, said)
    if len({group for _, group in names}) < 2:
        return skipped(f"no two videos of the split {context.params.split} have annotated clips")
    queries = draw_evenly([said[clip][0] for clip, _ in names], context.params.queries, context.seed)
    ontology = read_ontology_of(context.annotations, [said[clip] for clip, _ in names])
    rows = with_gains(list(retrieve(names, embeddings, queries, context.params.results)), ontology, said)
    write_table(context.folder, TABLES, "retrieved", rows)
    shown = {row[role] for row in rows for role in ("query", "result")}
    write_table(context.folder, TABLES, "retrieval_clips", clip_rows(context, wanted, said, shown))
    metrics = {"queries": len(queries), "clips": len(names), "clips_displayed": len(shown), "C": ontology.diameter()}
    closing = f"{len(queries)} queries among {len(names):,} clips of the split {context.params.split}"
    return ExhibitResult({"split": context.params.split, "gain": "max(C - d, 0) / C"}, metrics, closing)


def embed(
    context: Context, networks: Mapping[str, Correspondence], wanted: InputSpec, said: Annotations
) -> tuple[list[tuple[str, str]], dict[str, dict[str, np.ndarray]]]:
    """Clips and groups of the database in the order in which equally near ones are found, drawn as the benchmark does;
    and by sense and network their embeddings, (clips, dimensions).
    """
    clips = clips_of_split(context.data_dir, wanted, context.params.split)
    names, images, sounds = describe_clips(
        context.data_dir,
        (clip for clip in clips if said.get(clip.clip_id)),
        wanted,
        networks,
        lambda network, images: network.embed_images(images),
        lambda network, sounds: network.embed_audio(sounds),
        "retrieval",
    )
    drawn = np.random.default_rng(context.seed).permutation(len(names))
    embeddings = {
        modality: {prefix: rows[drawn] for prefix, rows in each.items()}
        for modality, each in (("image", images), ("sound", sounds))
    }
    return [names[place] for place in drawn], embeddings


def retrieve(
    names: Sequence[tuple[str, str]],
    embeddings: Mapping[str, Mapping[str, np.ndarray]],
    queries: Sequence[int],
    results: int,
) -> Iterator[dict[str, Any]]:
    """The nearest clips of other videos to each query, by network, direction, query and rank, from 1 on.

    Args:
        names: clip and group of each entry of the database.
        embeddings: by sense and network, (entries, dimensions).
        queries: numbers of entries.
        results: of each query, at most; as many for all.
    """
    groups = np.unique([group for _, group in names], return_inverse=True)[1]
    database = groups[queries][:, None] != groups  # (queries, entries)
    results = min(results, int(database.sum(1).min()))
    for prefix, (asked, found) in product(COMPARED, DIRECTIONS):
        ranked = rank(embeddings[asked][prefix][queries], embeddings[found][prefix], database, results)
        for query, nearest in zip(queries, ranked.tolist(), strict=True):
            for place, entry in enumerate(nearest, 1):
                yield {
                    "network": NETWORKS[prefix],
                    "direction": f"{asked}-to-{found}",
                    "query": names[query][0],
                    "rank": place,
                    "result": names[entry][0],
                }


def with_gains(rows: Sequence[dict[str, Any]], ontology: Ontology, said: Annotations) -> list[dict[str, Any]]:
    """The rows with the gain of each result: 1 for a clip of the query's own class.

    Raises EarshotError for an annotation that is no class of the ontology.
    """
    clips = sorted({row[role] for row in rows for role in ("query", "result")})
    places = {clip: place for place, clip in enumerate(clips)}
    farthest = max(ontology.diameter(), 1)
    gains = np.maximum(1 - clip_distances(ontology, [said[clip] for clip in clips]) / farthest, 0)
    return [row | {"gain": float(gains[places[row["query"]], places[row["result"]]])} for row in rows]


@torch.inference_mode()
def clip_rows(
    context: Context, wanted: InputSpec, said: Annotations, shown: Container[str]
) -> Iterator[dict[str, Any]]:
    """The clips that are shown: of the moment that was embedded the frame and the second of sound that was heard."""
    spectrogram = Spectrogram()
    for clip in clips_of_split(context.data_dir, wanted, context.params.split, shown):
        number, start = middle_moment(clip, SECONDS)
        sound = sound_slice(clip.sound, start, samples=SAMPLES, rate=RATE, channels=1)
        yield {
            "clip_id": clip.clip_id,
            "group": clip.group,
            "annotations": said[clip.clip_id],
            "frame": smaller_jpeg(clip.frames[number]),
            "spectrogram": spectrogram_png(spectrogram(torch.from_numpy(sound)[None])[0, 0].numpy()),
            "sound": mp3_of(sound, RATE),
        }


EXHIBIT = Exhibit(
    title="Retrieval", params=Params, make=make, tables=TABLES, metrics=("queries", "clips", "clips_displayed", "C")
)
