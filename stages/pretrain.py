"""Pretrain: train a network to predict the sound label of a moment from its frame.

The wrong-sound control trains on the same frames with labels of other groups' sounds, so its accuracy does not come
from sound. Both start from the same weights: random ones, which are saved too, k-means ones, or those of a file.

reads   data/scenes, data/labels
        pretrain.weights     a safetensors file, if set
writes  models/pretrain      encoder, wrong_sound and random as safetensors, encoder.json with their architecture
        metrics/pretrain.json, metrics/history.csv

    python -m stages.pretrain
    python -m stages.pretrain --set pretrain.epochs=0 --set pretrain.initialization=kmeans
    python -m stages.pretrain --set pretrain.width=1 --set pretrain.image_size=227 --set pretrain.batch_size=256
    EARSHOT_PROCESSES=2 python -m stages.pretrain
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST --master-port 29400 --nproc-per-node 4 -m stages.pretrain

Several processes share each batch, on GPUs or CPUs; on several machines they require the folder at the same path.
"""

from earshot.params.pretrain import PretrainParams
from earshot.pipeline.stage import Stage, StageContext
from earshot.training.encoder_training import train_beside, train_encoders
from earshot.training.pretraining import Pretraining

STAGE = Stage(
    name="pretrain",
    params=PretrainParams,
    reads=lambda params, _: ("data/scenes", "data/labels", params.pretrain.weights),
    clips="data/scenes",
    writes=("models/pretrain",),
    metrics=("pretrain",),
    plots=("history",),
)


def main(run: StageContext[PretrainParams]) -> str:
    """Train the encoder and its control."""
    return train_encoders(run, Pretraining)


def join(run: StageContext[PretrainParams]) -> None:
    """The work of further processes."""
    train_beside(run, Pretraining)


if __name__ == "__main__":
    STAGE.run(main, join=join)
