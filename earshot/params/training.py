"""What every training has among its parameters."""

from typing import Annotated, Literal

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
    """How a network is trained, whatever it learns."""

    weights: Annotated[str, IDEA, INITIAL]
    epochs: Count
    keep: Literal["last", "best", "lowest-loss"]
    optimiser: Literal["adamw", "adam", "sgd"]
    schedule: Literal["onecycle", "steps"]
    drops: Count
    drop: Share
    learning_rate: Amount
    weight_decay: Decay
    clip_norm: Amount
    precision: Literal["auto", "bf16", "float32"]
    threads: Annotated[Positive, INDIFFERENT]
    crop: CropShare
    jitter: Share
    grey: Share
    flip: bool
    control: Annotated[bool, INDIFFERENT]
