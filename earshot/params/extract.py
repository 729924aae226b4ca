"""Parameters of the stage extract."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import INDIFFERENT, Amount, Group, Part, Pixels, Positive, Seed, Share

Outcome = Literal["refuse", "flag", "ignore"]


class CorpusClips(Part):
    """Where clips come from, and the ontology of what humans said of them."""

    clips: str
    ontology: Annotated[str, INDIFFERENT]


class Quality(Group):
    """What is done about clips that decode and yet may be of no use, and from where on they count as such."""

    silent: Outcome
    silent_peak: Share
    still: Outcome
    still_change: Annotated[float, Field(ge=0, le=255)]
    clipped: Outcome
    clipped_share: Share
    duplicate: Outcome
    duplicate_sound: Annotated[float, Field(ge=0, le=0.25)]
    duplicate_picture: Annotated[float, Field(ge=0, le=0.25)]


class Extract(Group):
    """From clips to scenes."""

    frames: Positive
    times: Literal["random", "even"]
    frame_size: Pixels
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    sequence_rate: Annotated[float, Field(ge=0, le=60)]
    sequence_size: Pixels
    window: Amount
    shortest: Amount
    clip_seconds: Annotated[Amount, INDIFFERENT]
    megapixels_limit: Amount
    minutes_limit: Amount
    shard_clips: Annotated[Positive, INDIFFERENT]
    quality: Quality


class Params(Part):
    """What the stage extract reads."""

    seed: Seed
    corpus: CorpusClips
    extract: Extract
