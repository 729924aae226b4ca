"""Parameters of the stage extract."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import INDIFFERENT, Amount, Group, Names, Part, Pixels, Positive, Seed, Share, UnusedIf, UsedIf

Outcome = Literal["refuse", "flag", "ignore"]
SEQUENCES = UsedIf("correspond.network", "multisensory")
STILLS = UnusedIf("correspond.network", "multisensory")


class CorpusClips(Part):
    """Where clips come from, and the ontology of their annotations."""

    clips: str
    clips_manifest: str
    split: Literal["group", "manifest"]
    follow_links: Annotated[Names, INDIFFERENT]
    unmatched: Annotated[Literal["stop", "warn"], INDIFFERENT]
    ontology: Annotated[str, INDIFFERENT]


class Quality(Group):
    """What to do with clips that decode but may be useless, and the thresholds for each case."""

    silent: Outcome
    silent_peak: Share
    still: Outcome
    still_change: Annotated[float, Field(ge=0, le=255)]
    clipped: Outcome
    clipped_share: Share
    duplicate: Outcome
    duplicate_audio: Annotated[float, Field(ge=0, le=0.25)]
    duplicate_image: Annotated[float, Field(ge=0, le=0.25)]


class Extract(Group):
    """From clips to scenes."""

    frames: Annotated[Positive, STILLS]
    times: Annotated[Literal["random", "even"], STILLS]
    frame_size: Annotated[Pixels, STILLS]
    fit: Literal["crop", "squeeze"]
    decode: Annotated[Literal["all", "needed"], INDIFFERENT]
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    sequence_rate: Annotated[float, Field(ge=0, le=60), SEQUENCES]
    sequence_size: Annotated[Pixels, SEQUENCES]
    window_s: Annotated[Amount, UsedIf("label.model")]
    min_duration_s: Amount
    decode_timeout_s: Annotated[Amount, INDIFFERENT]
    max_megapixels: Amount
    max_duration_s: Amount
    shard_clips: Annotated[Positive, INDIFFERENT]
    quality: Quality


class ExtractParams(Part):
    """What the stage extract reads."""

    seed: Seed
    corpus: CorpusClips
    extract: Extract
