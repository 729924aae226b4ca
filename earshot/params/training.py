"""Parameters that all trainings share."""

from typing import Annotated, Literal

from pydantic import Field

from earshot.core.params import (
    IDEA,
    INDIFFERENT,
    INITIAL,
    Amount,
    Count,
    CropShare,
    Decay,
    Group,
    Positive,
    Share,
)


class Training(Group):
    """How to train a network, whatever it predicts."""

    weights: Annotated[str, IDEA, INITIAL]
    epochs: Count
    checkpoint_selection: Literal["last", "best", "lowest-loss"]
    optimizer: Literal["adamw", "adam", "sgd"]
    schedule: Literal["onecycle", "steps"]
    lr_step_epochs: Decay
    lr_gamma: Share
    learning_rate: Amount
    weight_decay: Decay
    grad_clip_norm: Amount
    precision: Literal["auto", "bf16", "float32"]
    num_threads: Annotated[Positive, INDIFFERENT]
    crop_side: Share
    crop_min_scale: CropShare
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Annotated[float, Field(ge=0, le=0.5)]
    grayscale_prob: Share
    flip_prob: Share
    control: Annotated[bool, INDIFFERENT]
