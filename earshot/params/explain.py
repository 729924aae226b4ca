"""Parameters of the stage explain: each exhibit declares its own in its module."""

from typing import Annotated, Any

from pydantic import Field, create_model

from earshot.core.params import INDIFFERENT, Amount, Group, Names, Part, Seed
from earshot.core.registry import find


class ExhibitParams(Group):
    """What every exhibit has: its data, the encoder that it shows, and the packages whose code it uses."""

    data_dir: str
    encoder: str
    code: Annotated[tuple[str, str], Field(strict=False)]


class CorpusMedia(Part):
    """Where the clips are, with their videos and sounds."""

    clips: str
    follow_links: Annotated[Names, INDIFFERENT]


class WindowLength(Part):
    """The length of the sound around a moment."""

    window_s: Amount


class ExplainParams(Part):
    """What the stage explain reads; `explain` holds the group of the one exhibit that runs."""

    seed: Seed
    corpus: CorpusMedia
    extract: WindowLength
    explain: Part


def params_of(exhibit: str) -> type[ExplainParams]:
    """The parameters of one exhibit's run."""
    group = find("earshot.exhibits", exhibit, "EXHIBIT", what="--exhibit").params
    own: dict[str, Any] = {exhibit: (group, ...)}
    explain = create_model("Explain", __base__=Part, **own)
    return create_model("ExplainParams", __base__=ExplainParams, explain=(explain, ...))
