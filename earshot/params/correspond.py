"""Parameters of the stage correspond."""

from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from earshot.core.params import IDEA, INITIAL, Amount, CropShare, Decay, Part, Seed, Share, UsedIf, fields_of_each
from earshot.core.registry import find_all
from earshot.networks.audio_visual_base import Correspondence, CorrespondenceArguments
from earshot.networks.network import Width
from earshot.params.training import Training

NETWORKS: dict[str, type[Correspondence]] = find_all("earshot.networks.correspondence", "CORRESPONDENCE")
OBJECTIVES: dict[str, Any] = find_all("earshot.training.objectives", "OBJECTIVE")
NAME: Any = Annotated[Literal[*NETWORKS], IDEA, INITIAL]
OBJECTIVE: Any = Annotated[Literal[*OBJECTIVES], IDEA]
STEPS = UsedIf("correspond.schedule", "steps")


class CorrespondBase(Training):
    """Training a network to predict whether an image and a sound belong together, for any network."""

    network: str
    objective: str
    width: Annotated[Width, INITIAL]
    image_size: Annotated[int, Field(ge=32, le=1024), INITIAL]
    positives: Annotated[Literal["centered", "overlapping"], IDEA]
    last_layer: Annotated[Literal["ours", "kim", "random"], IDEA, INITIAL, UsedIf("correspond.network", "ave")]
    negatives: Annotated[Literal["other-group", "shifted", "both"], IDEA]
    shifted_share: Annotated[Share, IDEA, UsedIf("correspond.negatives", "both")]
    grid_s: Amount
    min_shift_s: Annotated[Amount, UsedIf("correspond.negatives", "shifted", "both")]
    batch_size: Annotated[int, Field(ge=4, multiple_of=2)]
    lr_step_epochs: Annotated[Decay, STEPS]
    lr_gamma: Annotated[Share, STEPS]
    crop_side: Annotated[Share, IDEA]
    crop_min_scale: Annotated[CropShare, IDEA, UsedIf("correspond.crop_side", 0)]
    brightness: Annotated[Share, IDEA]
    contrast: Annotated[Share, IDEA]
    saturation: Annotated[Share, IDEA]
    hue: Annotated[float, Field(ge=0, le=0.5), IDEA]
    grayscale_prob: Annotated[Share, IDEA]
    flip_prob: Annotated[Share, IDEA]
    gain_jitter: Annotated[float, Field(ge=0, lt=1), IDEA]
    noise_level: Annotated[Decay, IDEA]
    time_shift_s: Annotated[Decay, IDEA]
    mix_share: Annotated[Share, IDEA]
    frequency_mask: Annotated[Share, IDEA]
    time_mask: Annotated[Share, IDEA]


Correspond = create_model(
    "Correspond",
    __base__=CorrespondBase,
    network=(NAME, ...),
    objective=(OBJECTIVE, ...),
    **fields_of_each(
        {name: network.arguments for name, network in NETWORKS.items()},
        "correspond.network",
        INITIAL,
        without=CorrespondenceArguments,
    ),
    **fields_of_each({name: kind.arguments for name, kind in OBJECTIVES.items()}, "correspond.objective"),
)


class CorrespondBaseParams(Part):
    """What the stage correspond reads, for any network."""

    seed: Seed
    correspond: CorrespondBase


CorrespondParams = create_model("CorrespondParams", __base__=CorrespondBaseParams, correspond=(Correspond, ...))
