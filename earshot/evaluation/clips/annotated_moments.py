"""The moments of annotated clips, for benchmarks that compare embeddings with human annotations."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from earshot.core.params import SplitName
from earshot.evaluation.benchmark import Context, NotApplicable
from earshot.evaluation.clips.clip_embeddings import (
    CENTERED,
    Describe,
    clips_of_split,
    describe_clips,
    images_alone,
    load_correspondences,
    load_image_encoders,
    read_all_annotations,
)
from earshot.params.evaluate import BenchmarkParams
from earshot.scenes.clips import InputSpec, clips_of


class ClipParams(BenchmarkParams):
    """The parameters of a benchmark that embeds a moment of each annotated clip of a split."""

    inputs: Literal["clips"]
    split: SplitName


@dataclass(frozen=True)
class AnnotatedMoments:
    """The annotated clips of a split, in the order of their names, and the embeddings of a moment of each.

    Args:
        clips, groups: the names of each clip and of its source video.
        annotations: of each clip, at least one.
        images, sounds: embeddings by the prefix of the network's metrics, float32 (clips, dimensions); no sounds by
            networks of images alone.
        left_out: number of clips of the split without annotations, or shorter than the slice of sound.
    """

    clips: list[str]
    groups: list[str]
    annotations: list[list[str]]
    images: dict[str, np.ndarray]
    sounds: dict[str, np.ndarray]
    left_out: int


def describe_moments(
    context: Context[Any], embed_images: Describe, embed_audio: Describe | None, title: str
) -> AnnotatedMoments:
    """The moments of the split `context.params.split`, embedded by `embed_images` and `embed_audio` of each network.

    `embed_audio` is None for the networks of the stage pretrain.

    Raises:
        EarshotError: a network or a table cannot be read.
        NotApplicable: no clip of the split is annotated.
    """
    networks: dict[str, Any]
    if embed_audio:
        networks = load_correspondences(context.encoder)
        spec = InputSpec.by(networks[""])
    else:
        networks = load_image_encoders(context.encoder)
        spec = images_alone(networks[""])
    annotations = read_all_annotations(context.required_annotations)
    split, any_length = context.params.split, replace(spec, audio_samples=0)
    clips = (clip for clip in clips_of_split(context.data_dir, spec, split) if annotations.get(clip.clip_id))
    names, images, sounds = describe_clips(context.data_dir, clips, spec, networks, embed_images, embed_audio, title)
    if not names:
        raise NotApplicable(
            f"{context.annotations}: no clip of the split {split} is annotated and {spec.seconds:.2f} s long; "
            "give clips with annotations"
        )
    return AnnotatedMoments(
        clips=[clip for clip, _ in names],
        groups=[group for _, group in names],
        annotations=[annotations[clip] for clip, _ in names],
        images=images,
        sounds=sounds,
        left_out=sum(map(len, clips_of(context.data_dir, any_length, CENTERED, split=split))) - len(names),
    )
