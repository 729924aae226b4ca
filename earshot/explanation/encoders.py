"""What a folder of encoders holds, as an exhibit must know before it asks anything of them."""

from pathlib import Path

from earshot.networks.correspondence import CORRESPONDENCES, TOWERS
from earshot.networks.files import ARCHITECTURE_FILE, read_architecture

NETWORKS = {"": "encoder", "wrong_sound_": "wrong_sound", "random_": "random"}  # by the prefix of their metrics


def hears(folder: Path) -> bool:
    """Whether the networks of a folder are those of the stage correspond.

    Raises EarshotError as `read_architecture` does.
    """
    return read_architecture(folder / ARCHITECTURE_FILE)["name"] in CORRESPONDENCES


def why_no_towers(folder: Path) -> str | None:
    """Why the networks of a folder have no tower for single pictures and one for sounds; None where they have them.

    Raises EarshotError as `read_architecture` does.
    """
    name = read_architecture(folder / ARCHITECTURE_FILE)["name"]
    if name in TOWERS:
        return None
    if name in CORRESPONDENCES:
        return f"{name} sees sequences of pictures, and tells nothing of one picture or one sound alone"
    return f"{name} is a network of the stage pretrain, which hears nothing"
