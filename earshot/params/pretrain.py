"""Parameters of the stage pretrain."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import Part, Role, Seed
from earshot.networks.network import Width
from earshot.params.training import Training


class Pretrain(Training):
    """Training a network to predict the label from a frame."""

    backbone: str
    initialisation: Annotated[Literal["random", "kmeans"], Role("idea", plain="random")]
    width: Width
    image_size: Annotated[int, Field(ge=32, le=1024)]
    batch: Annotated[int, Field(ge=2)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class Params(Part):
    """What the stage pretrain reads."""

    seed: Seed
    pretrain: Pretrain
