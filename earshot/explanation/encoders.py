"""Which exhibits a folder of encoders supports."""

from pathlib import Path

from earshot.networks.backbones import find_network
from earshot.networks.correspondence import find_correspondence, is_correspondence
from earshot.networks.files import ARCHITECTURE_FILE, read_architecture
from earshot.networks.network import Convolutional
from earshot.networks.two_towers import TwoTowers

NETWORKS = {"": "encoder", "wrong_sound_": "wrong_sound", "random_": "random"}  # by the prefix of their metrics


def why_no_towers(folder: Path) -> str | None:
    """The reason why the networks of a folder have no image tower and audio tower; None if they have both.

    Raises EarshotError as `read_architecture` does.
    """
    name = read_architecture(folder / ARCHITECTURE_FILE)["name"]
    if not is_correspondence(name):
        return f"{name} is a network of the stage pretrain, which takes no audio"
    if issubclass(find_correspondence(name), TwoTowers):
        return None
    return f"{name} takes sequences of images with audio, and cannot embed an image or audio alone"


def why_no_maps(folder: Path) -> str | None:
    """The reason why the networks of a folder give no maps of single images; None if they do.

    Raises EarshotError as `read_architecture` does.
    """
    name = read_architecture(folder / ARCHITECTURE_FILE)["name"]
    if is_correspondence(name):
        return why_no_towers(folder)
    return None if issubclass(find_network(name), Convolutional) else f"{name} is not convolutional"
