"""Correspond: a network learns whether a picture and a sound belong together, from the scenes alone.

Beside it the wrong-sound control learns the same of clips whose sounds were dealt to other groups for good: what it
reaches did not come from sound. Both begin with the same random weights, which are kept too.

reads   data/scenes
        correspond.weights    a safetensors file, where it names one
writes  models/correspond    encoder, wrong_sound and random as safetensors, encoder.json with their architecture: both
                             towers, what joins them, and how sound becomes a spectrogram
        metrics/correspond.json, metrics/correspond_history.csv

    python -m stages.correspond
    python -m stages.correspond --set correspond.network=l3 --set correspond.positives=overlapping
    python -m stages.correspond --set correspond.width=1 --set correspond.image_size=224 --set correspond.batch_size=256
    EARSHOT_PROCESSES=2 python -m stages.correspond

The multisensory network needs sequences: extract.sequence_rate. Several processes share every batch, on a GPU each or
on CPUs; those of several machines share the folder, at one path.
"""

from earshot.params.correspond import BaseParams, Params
from earshot.pipeline.stage import Stage, StageContext
from earshot.training.corresponding import Corresponding
from earshot.training.encoder_training import train_beside, train_encoders

STAGE = Stage(
    name="correspond",
    params=Params,
    reads=lambda params, _: ("data/scenes", params.correspond.weights),
    clips="data/scenes",
    writes=("models/correspond",),
    metrics=("correspond",),
    plots=("correspond_history",),
)


def main(run: StageContext[BaseParams]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Corresponding)


def join(run: StageContext[BaseParams]) -> None:
    """What further processes do."""
    train_beside(run, Corresponding)


if __name__ == "__main__":
    STAGE.run(main, join=join)
