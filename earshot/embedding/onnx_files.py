"""Networks as ONNX files: waveforms in, embeddings out, the spectrogram included; checked against PyTorch.

The metadata of a file hold the fingerprint of the model and the rate of the waveforms.
"""

import copy
import math
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.embedding.network import NetworkModel
from earshot.embedding.published import PROBE_RATE, probe_image, probe_sound
from earshot.networks.network import Network
from earshot.networks.spectrogram import FLOOR, FREQUENCIES, HOP, POINTS, SAMPLES, WINDOW
from earshot.networks.two_towers import TwoTowers

TOLERANCE = 1e-4  # of an embedding's values, relative to the largest
OPSET = 18


class RealSpectrogram(nn.Module):
    """`Spectrogram` in real numbers: a convolution with the cosines and sines of each frequency, under the window."""

    waves: Tensor

    def __init__(self) -> None:
        super().__init__()
        angles = 2 * math.pi * torch.arange(FREQUENCIES)[:, None] * torch.arange(WINDOW).double() / POINTS
        window = torch.hann_window(WINDOW, dtype=torch.float64)
        waves = torch.cat([angles.cos(), angles.sin()]) * window  # (2 x 257, 480)
        self.register_buffer("waves", waves.float()[:, None])

    def forward(self, waveforms: Tensor) -> Tensor:
        parts = nn.functional.conv1d(waveforms[:, None], self.waves, stride=HOP)  # (n, 2 x 257, 199)
        power = parts[:, :FREQUENCIES].square() + parts[:, FREQUENCIES:].square()
        return power.clamp(min=FLOOR).log()[:, None]


class AudioEmbedding(nn.Module):
    """Waveforms, float32 (n, 48000), to embeddings."""

    def __init__(self, network: TwoTowers) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()
        self.network.spectrogram = cast(Any, RealSpectrogram())

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.network.embed_audio(waveforms)


class ImageEmbedding(nn.Module):
    """Images, uint8 (n, 3, size, size), to embeddings."""

    def __init__(self, model: NetworkModel) -> None:
        super().__init__()
        self.network, self.embed = copy.deepcopy(model.network).cpu(), model.embed_images

    def forward(self, images: Tensor) -> Tensor:
        return self.embed(self.network, images)


class Scores(nn.Module):
    """Images, uint8 (n, 3, size, size), to the scores of the labels."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).cpu()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def write_onnx(model: NetworkModel, folder: Path) -> dict[Path, float]:
    """Write audio.onnx and images.onnx, and labels.onnx of a network of the stage pretrain.

    Returns the largest difference from PyTorch of each file, relative to the largest value.

    Raises EarshotError if a file computes other values than PyTorch.
    """
    sound = torch.from_numpy(np.stack([probe_sound()[:SAMPLES], probe_sound()[-SAMPLES:]]))
    image = torch.from_numpy(model.fit_image(probe_image())).permute(2, 0, 1)
    images = torch.stack([image, 255 - image]).contiguous()
    written: dict[Path, tuple[nn.Module, Tensor, str, Callable | None]] = {}
    if isinstance(model.network, TwoTowers):
        written[folder / "audio.onnx"] = (AudioEmbedding(model.network), sound, "waveforms", model.network.embed_audio)
    written[folder / "images.onnx"] = (ImageEmbedding(model), images, "images", None)
    if isinstance(model.network, Network):
        written[folder / "labels.onnx"] = (Scores(model.network), images, "images", None)
    return {file: _write(file, model, *what) for file, what in written.items()}


def _write(
    file: Path, model: NetworkModel, module: nn.Module, inputs: Tensor, name: str, embed: Callable | None
) -> float:
    """Write one file and compare it with `embed`, by default with the module; the largest difference."""
    output = "scores" if isinstance(module, Scores) else "embeddings"
    with write_atomically(file) as temporary:
        program = torch.onnx.export(
            module.eval(),
            (inputs,),
            input_names=[name],
            output_names=[output],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program
        proto = program.model_proto
        properties = {"earshot": metadata.version("earshot"), "fingerprint": model.fingerprint, "rate": str(PROBE_RATE)}
        onnx.helper.set_model_props(proto, properties)
        onnx.save(proto, temporary)
        with torch.inference_mode():
            expected = (embed or module)(inputs).float().numpy()
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        (actual,) = session.run(None, {name: inputs.numpy()})
        difference = float(np.abs(actual - expected).max() / np.abs(expected).max(initial=1e-6))
        if not difference <= TOLERANCE:
            raise EarshotError(f"{file}: differs from PyTorch by {difference:.2g}, expected at most {TOLERANCE:g}")
    return difference
