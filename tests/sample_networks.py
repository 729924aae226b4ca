"""Folders of encoders as the stage correspond writes them, with small random networks."""

from collections.abc import Sequence
from pathlib import Path

import torch

from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import ENCODERS, save_architecture, save_weights


def save_correspondence_network(folder: Path, name: str, seeds: Sequence[int], **arguments) -> Path:
    """A network of each seed, as encoder, wrong_sound and random, as far as there are seeds."""
    folder.mkdir(exist_ok=True)
    for encoder, seed in zip(ENCODERS, seeds, strict=False):
        torch.manual_seed(seed)
        network = build_correspondence(name, width=1 / 16, image_size=32, **arguments)
        if network.audio_channels == 1:
            network.fit_audio_scale(torch.randn(2, 48_000).clamp(-1, 1) * 0.1)
        save_architecture(folder, network)
        save_weights(folder, encoder, network)
    return folder
