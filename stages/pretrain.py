"""Pretrain: a network learns to tell a moment's sound label from its frame alone.

Beside it, on frames of the same clips, the wrong-sound control learns labels of sounds dealt from other groups: what it
reaches did not come from sound. Both begin with the same weights: random ones, which are kept too, k-means ones, or
those of a file.

reads   data/scenes, data/labels
        pretrain.weights     a safetensors file, where it names one
writes  models/pretrain      encoder, wrong_sound and random as safetensors, encoder.json with their architecture
        metrics/pretrain.json, metrics/history.csv

    python -m stages.pretrain
    python -m stages.pretrain --set pretrain.epochs=0 --set pretrain.initialization=kmeans
    python -m stages.pretrain --set pretrain.width=1 --set pretrain.image_size=227 --set pretrain.batch_size=256
    EARSHOT_PROCESSES=2 python -m stages.pretrain
    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 -m stages.pretrain

Several processes share every batch, on a GPU each or on CPUs; those of several machines share the folder, at one path.
"""

from earshot.params.pretrain import Params
from earshot.pipeline.stage import Stage, StageContext
from earshot.training.encoder_training import train_beside, train_encoders
from earshot.training.pretraining import Pretraining

STAGE = Stage(
    name="pretrain",
    params=Params,
    reads=lambda params, _: ("data/scenes", "data/labels", params.pretrain.weights),
    clips="data/scenes",
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


def main(run: StageContext[Params]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Pretraining)


def join(run: StageContext[Params]) -> None:
    """What further processes do."""
    train_beside(run, Pretraining)


if __name__ == "__main__":
    STAGE.run(main, join=join)
