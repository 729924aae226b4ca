"""Names of networks in words, and which of them a benchmark or an exhibit is about."""

from collections.abc import Mapping
from typing import Any

BACKBONES = {"alexnet": "AlexNet", "caffenet": "CaffeNet", "resnet18": "ResNet-18", "resnet50": "ResNet-50"}
CORRESPONDENCE = {
    "ave": "AVE-Net",
    "l3": "L3-Net",
    "avol": "AVOL-Net",
    "dual_encoder": "a dual encoder",
    "multisensory": "the multisensory network",
}
LEARNED_DESCRIPTOR = "encoder"  # of the parameter `descriptor`: the audio tower of a trained network


def pretrain_network(params: Mapping[str, Any]) -> str:
    """The name of the network that the stage pretrain trains."""
    backbone = str(params.get("pretrain.backbone"))
    return BACKBONES.get(backbone, backbone)


def correspond_network(params: Mapping[str, Any]) -> str:
    """The name of the network that the stage correspond trains."""
    return CORRESPONDENCE.get(str(params.get("correspond.network")), "a network")


def encoder_in_words(params: Mapping[str, Any], group: str) -> str:
    """What a benchmark or exhibit measures, and the stage that made it; empty if the parameters do not say.

    `group` names its parameters, such as `evaluate.voc` or `explain.units`.
    """
    encoder = params.get(f"{group}.encoder")
    if encoder == "models/pretrain":
        return f"{pretrain_network(params)}, trained by the stage pretrain"
    if encoder == "models/correspond":
        return f"{correspond_network(params)}, trained by the stage correspond"
    if encoder == "models/descriptor":
        origin = "of a trained network" if params.get("descriptor") == LEARNED_DESCRIPTOR else "computed, not learned"
        return f"the sound descriptor “{params.get('descriptor')}” of the stage describe, {origin}"
    if encoder == "models/labeler":
        return "the labels of the stage label"
    return str(encoder or "")


def is_computed(params: Mapping[str, Any], benchmark: str) -> bool:
    """Whether a benchmark measures a descriptor that nothing was trained for."""
    encoder = params.get(f"evaluate.{benchmark}.encoder")
    return encoder == "models/descriptor" and params.get("descriptor") != LEARNED_DESCRIPTOR
