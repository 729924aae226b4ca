"""What a folder of encoders holds, as an exhibit must know before it asks anything of them."""

from pathlib import Path

from earshot.networks.backbones import find_network
from earshot.networks.correspondence import find_correspondence, is_correspondence
from earshot.networks.files import ARCHITECTURE_FILE, read_architecture
from earshot.networks.network import Convolutional
from earshot.networks.two_towers import TwoTowers

NETWORKS = {"": "encoder", "wrong_sound_": "wrong_sound", "random_": "random"}  # by the prefix of their metrics


def hears(folder: Path) -> bool:
    """Whether the networks of a folder are those of the stage correspond.

    Raises EarshotError as `read_architecture` does.
    """
    return is_correspondence(read_architecture(folder / ARCHITECTURE_FILE)["name"])


def why_no_towers(folder: Path) -> str | None:
    """Why the networks of a folder have no tower for single pictures and one for sounds; None where they have them.

    Raises EarshotError as `read_architecture` does.
    """
    name = read_architecture(folder / ARCHITECTURE_FILE)["name"]
    if not is_correspondence(name):
        return f"{name} is a network of the stage pretrain, which hears nothing"
    if issubclass(find_correspondence(name), TwoTowers):
        return None
    return f"{name} sees sequences of pictures, and tells nothing of one picture or one sound alone"


def why_no_maps(folder: Path) -> str | None:
    """Why the networks of a folder have no maps over the positions of single pictures; None where they have them.

    Raises EarshotError as `read_architecture` does.
    """
    name = read_architecture(folder / ARCHITECTURE_FILE)["name"]
    if is_correspondence(name):
        return why_no_towers(folder)
    return None if issubclass(find_network(name), Convolutional) else f"{name} is not convolutional"
