"""Parameters of the stage correspond."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import IDEA, Amount, CropShare, Part, Positive, Seed, Share, UsedIf
from earshot.params.training import Training

MULTISENSORY = UsedIf("correspond.network", "multisensory")


class Correspond(Training):
    """Training a network to predict whether an image and a sound belong together."""

    network: Annotated[str, IDEA]
    width: Annotated[float, Field(ge=1 / 64, le=4)]
    stride: Literal[1, 2]
    image_size: Annotated[int, Field(ge=32, le=1024)]
    frames: Annotated[Positive, MULTISENSORY]
    sound_samples: Annotated[Positive, MULTISENSORY]
    positives: Annotated[Literal["centred", "overlapping"], IDEA]
    negatives: Annotated[Literal["other-group", "shifted"], IDEA]
    grid: Amount
    shift: Annotated[Amount, UsedIf("correspond.negatives", "shifted")]
    batch: Annotated[int, Field(ge=4, multiple_of=2)]
    crop: Annotated[CropShare, IDEA]
    jitter: Annotated[Share, IDEA]
    grey: Annotated[Share, IDEA]
    flip: Annotated[bool, IDEA]
    volume: Annotated[float, Field(ge=0, lt=1), IDEA]


class Params(Part):
    """What the stage correspond reads."""

    seed: Seed
    correspond: Correspond
