"""Correspond: train a network to predict whether an image and a sound belong together, from the scenes alone.

The wrong-sound control trains on the same clips with sounds of other groups, so its accuracy does not come from sound.
Both start from the same random weights, which are saved too.

reads   data/scenes
        correspond.weights    a safetensors file, if set
writes  models/correspond    encoder, wrong_sound and random as safetensors, encoder.json with their architecture: both
                             towers, their head, and the spectrogram
        metrics/correspond.json, metrics/correspond_history.csv

    python -m stages.correspond
    python -m stages.correspond --set correspond.network=l3 --set correspond.positives=overlapping
    python -m stages.correspond --set correspond.width=1 --set correspond.image_size=224 --set correspond.batch_size=256
    EARSHOT_PROCESSES=2 python -m stages.correspond

The multisensory network requires sequences: set extract.sequence_rate. Several processes share each batch, on GPUs or
CPUs; on several machines they require the folder at the same path.
"""

from earshot.params.correspond import CorrespondBaseParams, CorrespondParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.training.corresponding import Corresponding
from earshot.training.encoder_training import train_beside, train_encoders

STAGE = Stage(
    name="correspond",
    params=CorrespondParams,
    reads=lambda params, _: ("data/scenes", params.correspond.weights),
    clips="data/scenes",
    writes=("models/correspond",),
    metrics=("correspond",),
    plots=("correspond_history",),
)


def main(run: StageContext[CorrespondBaseParams]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Corresponding)


def join(run: StageContext[CorrespondBaseParams]) -> None:
    """The work of further processes."""
    train_beside(run, Corresponding)


if __name__ == "__main__":
    STAGE.run(main, join=join)
