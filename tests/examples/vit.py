"""A small vision transformer: as earshot/networks/backbones/vit.py it is `pretrain.backbone=vit`.

Patches of an image run through blocks of attention (Dosovitskiy 2021); their mean predicts the label.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from earshot.networks.network import Network, initialize

PATCH, CHANNELS, HEADS, BLOCKS = 16, 192, 3, 4  # px, of width 1, and how many


class VisionTransformer(Network):
    """The probe layers are the means over the patches after each block."""

    probe_layers = tuple(f"block{number}" for number in range(1, BLOCKS + 1))
    fully_connected_names = ("head",)

    def __init__(self, *, classes: int, width: float, image_size: int, dropout: float) -> None:
        super().__init__(classes=classes, width=width, image_size=image_size, dropout=dropout)
        channels = HEADS * max(1, round(CHANNELS * width / HEADS))
        self.patches = nn.Conv2d(3, channels, PATCH, PATCH)
        self.position_embeddings = nn.Parameter(torch.zeros((image_size // PATCH) ** 2, channels))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(channels, HEADS, 4 * channels, dropout, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.head = nn.Linear(channels, 1)
        self.apply(initialize)
        self.renew_output(classes)  # all classes are equally likely at first

    def activations(self, normalized: Tensor) -> Iterator[tuple[str, Tensor]]:
        tokens = (
            self.patches(normalized).flatten(2).transpose(1, 2) + self.position_embeddings
        )  # (images, patches, channels)
        for layer, block in zip(self.probe_layers, self.blocks, strict=True):
            tokens = block(tokens)
            yield layer, tokens.mean(1)

    def penultimate(self, normalized: Tensor) -> Tensor:
        return dict(self.activations(normalized))[self.probe_layers[-1]]


BACKBONE = VisionTransformer
