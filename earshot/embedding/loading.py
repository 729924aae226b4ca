"""Loads a model from where it is: the folder of a stage, a published folder, a file of weights, or a repository."""

import re
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.embedding.descriptor import TEXTURE, DescriptorModel
from earshot.embedding.model import Model
from earshot.embedding.published import CONFIG_FILE, check_published
from earshot.sound.description import DESCRIPTION_FILE

ARCHITECTURE_FILE, WEIGHTS = "encoder.json", ".safetensors"
LABELER_FILE = "labeler.json"
REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")  # a Hugging Face repository id


def load(source: str | Path, *, weights: str = "encoder", layer: str | None = None) -> Model:
    """A model that embeds sounds, images and videos.

    >>> model = earshot.load("models/correspond")
    >>> embeddings, times = model.embed_audio("dog.wav")  # float32 (T, D), s (T,)

    Args:
        source: the folder of the stage correspond or pretrain, of a published model, or of the stage describe; a file
            of weights in such a folder; the id of a Hugging Face repository; or `texture`, which needs no torch.
        weights: `encoder`, or a control: `wrong_sound` or `random`.
        layer: of the images' embedding; by default the one that the network compares with sounds, or fc7.

    Raises:
        EarshotError: there is no model, it is damaged, or has no such weights or layer; or this version computes other
            embeddings than were published.
    """
    path = Path(source)
    if path.suffix == WEIGHTS and path.is_file():
        path, weights = path.parent, path.stem
    if (path / ARCHITECTURE_FILE).is_file():
        from earshot.embedding.network import NetworkModel  # imports torch

        network = NetworkModel.load(path, weights, layer)
        if (path / CONFIG_FILE).is_file() and layer is None:
            check_published(network, path / CONFIG_FILE)
        return network
    if (path / DESCRIPTION_FILE).is_file() and not (path / LABELER_FILE).exists():
        return DescriptorModel.load(path)
    if str(source) == TEXTURE:
        return DescriptorModel.texture()
    if not path.exists() and REPOSITORY.fullmatch(str(source)):
        return Model.from_pretrained(str(source))
    expected = f"expected {ARCHITECTURE_FILE} of the stage correspond or pretrain, or {DESCRIPTION_FILE} of describe"
    raise EarshotError(f"{source}: holds no model; {expected}, or give {TEXTURE}")
