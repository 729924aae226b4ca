"""Parameters of the stage sample."""

from typing import Annotated

from pydantic import Field

from earshot.core.params import INDIFFERENT, Group, Part, Pixels, Positive, Seed


class Sample(Group):
    """The rendered world."""

    seed: Seed
    clips: Positive
    duration_s: Annotated[float, Field(ge=4, le=60)]
    image_size: Pixels
    frame_rate: Positive
    shard_clips: Annotated[Positive, INDIFFERENT]
    voc_train: Positive
    voc_val: Positive
    voc_test: Positive
    sun_images: Positive
    esc50_recordings: Annotated[Positive, INDIFFERENT]
    localization_images: Annotated[Positive, INDIFFERENT]


class SampleParams(Part):
    """What the stage sample reads."""

    sample: Sample
