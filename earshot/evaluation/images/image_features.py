"""Features of image files: of an encoder's layers, or color histograms."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.core.params import INDIFFERENT, ONCE, Pixels
from earshot.core.prefetch import prefetch
from earshot.evaluation.image_files import read_image, require_images
from earshot.evaluation.probing import Probes
from earshot.networks.device import on_device
from earshot.networks.network import ImageEncoder
from earshot.params.evaluate import BenchmarkParams
from earshot.pipeline.settings import settings

BATCH = 64
COLOR_STEPS = 8  # of each of red, green and blue


class LayerParams(BenchmarkParams):
    """The parameters of a benchmark of layers.

    `layers` are names of the network's layers. An image is resized to `resize` px; the network takes the center crop.
    """

    inputs: Literal["images"]
    layers: Annotated[tuple[str, ...], Field(min_length=1, strict=False), ONCE, INDIFFERENT]
    resize: Pixels


class ProbeParams(LayerParams):
    """The parameters of a benchmark that fits probes to layers."""

    probes: Probes


def image_batches(files: Sequence[Path], resize: int, crop: int, title: str) -> Iterator[tuple[slice, Tensor]]:
    """Images in batches, (rows, uint8 (images, 3, crop, crop)), with a progress bar; threads read the next ones.

    Raises EarshotError if the crop is larger than the resized image, and for a missing file.
    """
    if crop > resize:
        raise EarshotError(f"resize is {resize} px, expected at least the encoder's {crop}; set it in params.yaml")
    require_images(files)

    def read(first: int) -> tuple[slice, Tensor]:
        batch = files[first : first + BATCH]
        return slice(first, first + len(batch)), torch.stack([read_image(file, resize, crop) for file in batch])

    starts = range(0, len(files), BATCH)
    batches = prefetch(read, starts, settings().threads)
    yield from tqdm(batches, total=len(starts), desc=title, unit="batch", leave=False, disable=None)


@torch.inference_mode()
def layer_features(
    encoder: ImageEncoder, files: Sequence[Path], layers: Sequence[str], resize: int, title: str
) -> dict[str, Tensor]:
    """Activations after the ReLU of the requested layers, float32 (images, dimensions) each, on the CPU.

    Raises EarshotError for a layer that the encoder does not have, and as `image_batches`.
    """
    if unknown := [layer for layer in layers if layer not in encoder.probe_layers]:
        raise EarshotError(f"layers: the encoder has no {unknown[0]}; it has {', '.join(encoder.probe_layers)}")
    device = on_device(encoder).channel_mean.device
    features: dict[str, Tensor] = {}
    for rows, images in image_batches(files, resize, encoder.image_size, title):
        for layer, values in encoder.features(images.to(device), layers).items():
            if layer not in features:
                features[layer] = torch.empty(len(files), values.shape[1])
            features[layer][rows] = values.float().cpu()
    return features


def color_features(files: Sequence[Path], resize: int, crop: int) -> Tensor:
    """Color histograms: the root of the share of each of 8 x 8 x 8 colors, float32 (images, 512).

    The root turns the distance of histograms into Hellinger's, which makes a linear SVM a stronger control.
    """
    features = torch.empty(len(files), COLOR_STEPS**3)
    for rows, images in image_batches(files, resize, crop, "colors"):
        steps = (images // (256 // COLOR_STEPS)).int()  # (images, 3, crop, crop)
        codes = (steps[:, 0] * COLOR_STEPS + steps[:, 1]) * COLOR_STEPS + steps[:, 2]
        for row, code in zip(range(rows.start, rows.stop), codes, strict=True):
            shares = torch.bincount(code.flatten(), minlength=COLOR_STEPS**3) / code.numel()
            features[row] = shares.sqrt()
    return features
