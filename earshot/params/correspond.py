"""Parameters of the stage correspond."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from earshot.core.params import IDEA, INITIAL, Amount, Count, CropShare, Part, Seed, Share, UsedIf, fields_of_each
from earshot.core.registry import find_all
from earshot.networks.audio_visual_base import Correspondence, CorrespondenceArguments
from earshot.networks.network import Width
from earshot.params.training import Training

NETWORKS: dict[str, type[Correspondence]] = find_all("earshot.networks.correspondence", "CORRESPONDENCE")
NAME: Any = Annotated[Literal[*NETWORKS], IDEA, INITIAL]
STEPS = UsedIf("correspond.schedule", "steps")


class CorrespondBase(Training):
    """Training a network to predict whether an image and a sound belong together, whatever the network."""

    network: str
    width: Annotated[Width, INITIAL]
    image_size: Annotated[int, Field(ge=32, le=1024), INITIAL]
    positives: Annotated[Literal["centred", "overlapping"], IDEA]
    negatives: Annotated[Literal["other-group", "shifted"], IDEA]
    grid: Amount
    shift: Annotated[Amount, UsedIf("correspond.negatives", "shifted")]
    batch: Annotated[int, Field(ge=4, multiple_of=2)]
    drops: Annotated[Count, STEPS]
    drop: Annotated[Share, STEPS]
    crop: Annotated[CropShare, IDEA]
    jitter: Annotated[Share, IDEA]
    grey: Annotated[Share, IDEA]
    flip: Annotated[bool, IDEA]
    volume: Annotated[float, Field(ge=0, lt=1), IDEA]


Correspond = create_model(
    "Correspond",
    __base__=CorrespondBase,
    network=(NAME, ...),
    **fields_of_each(
        {name: network.arguments for name, network in NETWORKS.items()},
        "correspond.network",
        INITIAL,
        without=CorrespondenceArguments,
    ),
)


class BaseParams(Part):
    """What the stage correspond reads, whatever the network."""

    seed: Seed
    correspond: CorrespondBase


Params = create_model("Params", __base__=BaseParams, correspond=(Correspond, ...))
