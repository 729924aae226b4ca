"""The correspondence networks by their names: what `correspond.network` may be."""

from typing import Any

from earshot.core.errors import EarshotError
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.multisensory import FRAMES, SAMPLES, Multisensory
from earshot.networks.two_towers import AVENet, AVOLNet, L3Net

__all__ = ["CORRESPONDENCES", "Correspondence", "build_correspondence"]

TOWERS = {network.name: network for network in (L3Net, AVENet, AVOLNet)}
CORRESPONDENCES = (*TOWERS, "multisensory")


def build_correspondence(
    name: str, *, width: float, image_size: int, stride: int = 2, frames: int = FRAMES, sound_samples: int = SAMPLES
) -> Correspondence:
    """A network with random weights: `l3`, `ave`, `avol` or `multisensory`.

    Weights are drawn from torch's generator. `stride` is that of the towers, `frames` and `sound_samples` are those of
    the multisensory network; a network passes over what is not its own.

    Raises:
        EarshotError: an unknown name, or pictures too small.
    """
    own: dict[str, Any] = {"width": width, "image_size": image_size}
    if name in TOWERS:
        return TOWERS[name](**own, stride=stride)
    if name == "multisensory":
        return Multisensory(**own, frames=frames, sound_samples=sound_samples)
    raise EarshotError(f"correspond.network is {name!r:.60}; wanted {', '.join(CORRESPONDENCES)}")
