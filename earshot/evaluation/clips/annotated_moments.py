"""The moments of annotated clips, for benchmarks that compare what networks make of them with what humans said."""

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
    load_correspondences,
    read_all_annotations,
)
from earshot.params.evaluate import BenchmarkParams
from earshot.scenes.clips import InputSpec, clips_of


class ClipParams(BenchmarkParams):
    """What a benchmark has that describes a moment of each annotated clip of a split."""

    inputs: Literal["clips"]
    split: SplitName


@dataclass(frozen=True)
class Moments:
    """The clips of a split that humans said something of, in the order of their names, and a moment of each.

    Args:
        clips, groups: the names of each clip and of its source video.
        annotations: of each clip, at least one.
        pictures, sounds: by the prefix of the network's metrics, float32 (clips, dimensions).
        left_out: clips of the split without annotations, or shorter than the slice of sound.
    """

    clips: list[str]
    groups: list[str]
    annotations: list[list[str]]
    images: dict[str, np.ndarray]
    sounds: dict[str, np.ndarray]
    left_out: int


def describe_moments(context: Context[Any], see: Describe, hear: Describe, title: str) -> Moments:
    """The moments of the split `context.params.split`, as `see` and `hear` describe picture and sound by a network.

    Raises:
        EarshotError: a network or a table cannot be read.
        NotApplicable: no clip of the split is annotated.
    """
    networks = load_correspondences(context.encoder)
    wanted = InputSpec.by(networks[""])
    said = read_all_annotations(context.required_annotations)
    split, anything = context.params.split, replace(wanted, audio_samples=0)
    clips = (clip for clip in clips_of_split(context.data_dir, wanted, split) if said.get(clip.clip_id))
    names, images, sounds = describe_clips(context.data_dir, clips, wanted, networks, see, hear, title)
    if not names:
        raise NotApplicable(
            f"{context.annotations}: no clip of the split {split} is annotated and {wanted.seconds:.2f} s long; "
            "give clips with annotations"
        )
    return Moments(
        clips=[clip for clip, _ in names],
        groups=[group for _, group in names],
        annotations=[said[clip] for clip, _ in names],
        images=images,
        sounds=sounds,
        left_out=sum(map(len, clips_of(context.data_dir, anything, CENTERED, split=split))) - len(names),
    )
