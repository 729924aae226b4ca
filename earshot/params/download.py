"""Parameters of the stage download."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import INDIFFERENT, Amount, Count, Group, Names, Part, Positive, Seed

PART = r"^[1-9][0-9]{0,3}/[1-9][0-9]{0,3}$"  # 2/3 is the second of three


class Select(Group):
    """Which clips of the manifest are requested."""

    classes: Names
    ontology: str
    clips: Count
    seed: Seed
    part: Annotated[str, Field(pattern=PART)]


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


class DownloadParams(Part):
    """What the stage download reads."""

    corpus: CorpusList
    download: Annotated[Download, INDIFFERENT]
