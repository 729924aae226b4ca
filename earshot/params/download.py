"""Parameters of the stage download."""

from typing import Annotated, Literal

from earshot.core.params import INDIFFERENT, Amount, Count, Group, Names, Part, Positive, Seed


class Select(Group):
    """Which clips of the manifest are requested."""

    classes: Names
    ontology: str
    clips: Count
    seed: Seed


class CorpusList(Part):
    """Which list of clips is downloaded."""

    manifest: str
    select: Select
    accept_pending: Annotated[bool, INDIFFERENT]


class Download(Group):
    """From a manifest to tar shards."""

    shard_clips: Positive
    fetch: Literal["whole", "section"]
    timeout_s: Amount
    max_megabytes: Amount


class Params(Part):
    """What the stage download reads."""

    corpus: CorpusList
    download: Annotated[Download, INDIFFERENT]
