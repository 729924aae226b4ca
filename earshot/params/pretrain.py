"""Parameters of the stage pretrain."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import IDEA, INITIAL, Amount, CropShare, Part, Seed, UsedIf
from earshot.core.registry import names
from earshot.networks.network import Width
from earshot.params.training import Training

OWN = UsedIf("pretrain.backbone", *names("earshot.networks.backbones"))  # backbones of torchvision have one width


class Pretrain(Training):
    """Training a network to predict the label from a frame."""

    backbone: Annotated[str, INITIAL]
    objective: Annotated[Literal["cross-entropy", "supervised-contrastive"], IDEA]
    temperature: Annotated[Amount, IDEA, UsedIf("pretrain.objective", "supervised-contrastive")]
    initialization: Annotated[Literal["random", "kmeans"], IDEA, INITIAL]
    equalize_gradients: Annotated[bool, IDEA, INITIAL]
    width: Annotated[Width, INITIAL, OWN]
    image_size: Annotated[int, Field(ge=32, le=1024), INITIAL]
    batch_size: Annotated[int, Field(ge=2)]
    crop_min_scale: Annotated[CropShare, UsedIf("pretrain.crop_side", 0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class PretrainParams(Part):
    """What the stage pretrain reads."""

    seed: Seed
    pretrain: Pretrain
