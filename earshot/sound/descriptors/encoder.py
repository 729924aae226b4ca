"""The descriptor `encoder`: what the audio tower of a trained network makes of a window of sound.

The network is one of the stage correspond, or any folder of that layout: safetensors weights, and an architecture in
JSON, which can run no code. It takes seconds of sound; the mean over several of them describes a window of 3.75 s. The
stage describe copies the network's files beside its description, so that later stages describe other sounds alike.

Torch is imported where a network runs: stages that only read descriptors do without it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from earshot.core.errors import EarshotError
from earshot.core.params import IDEA, Group, is_present
from earshot.scenes.audio_slices import cut_slices, resample
from earshot.sound.description import Batch, Descriptor

if TYPE_CHECKING:
    from torch import Tensor

    from earshot.networks.audio_visual_base import Correspondence

AT_ONCE = 32  # seconds of sound per batch of the network: bounds the memory


class EncoderOptions(Group):
    """The network, and what of it describes a window.

    Args:
        folder: of encoders, such as models/correspond, or `none`.
        network: the trained one, or one of its controls.
        features: `embedding`, which the network compares with images; or `maps`: the maximum of each channel of the
            tower's last map, after the ReLU.
        windows: seconds of sound that are averaged, equally spaced over the window; 1 is the second around the frame.
    """

    folder: Annotated[str, IDEA]
    network: Annotated[Literal["encoder", "wrong_sound", "random"], IDEA]
    features: Annotated[Literal["embedding", "maps"], IDEA]
    windows: Annotated[int, Field(ge=1, le=64), IDEA]


def describe(batch: Batch, options: EncoderOptions) -> np.ndarray:
    """The mean features of each window: float32 (moments, dimensions)."""
    import torch

    network = _network(options.folder, options.network)
    seconds = cut_seconds(batch, options.windows, network.audio_samples, network.audio_rate)
    with _one_thread():
        parts = torch.from_numpy(seconds.reshape(-1, seconds.shape[2])).split(AT_ONCE)
        features = torch.cat([_features(network, part, options.features) for part in parts])
    return features.reshape(*seconds.shape[:2], -1).mean(1).numpy()


def cut_seconds(batch: Batch, windows: int, samples: int, rate: int) -> np.ndarray:
    """Slices of each window for a network, `samples` at `rate`: float32 (moments, windows, samples).

    The first begins and the last ends with the window. A single one lies around the moment, within the window.
    """
    cut = np.empty((len(batch.windows), windows, samples), np.float32)
    for row, window, center in zip(cut, batch.windows, batch.centers, strict=True):
        sound = resample(window[:, None], batch.sample_rate, rate, channels=1)
        last = max(len(sound) - samples, 0)
        starts = np.linspace(0, last, windows) if windows > 1 else np.clip([center * rate - samples / 2], 0, last)
        row[:] = cut_slices(sound, np.round(starts).astype(int).tolist(), samples)
    return cut


def dimensions(options: EncoderOptions) -> int:
    """The number of features. Raises EarshotError for a network that cannot describe windows."""
    import torch

    network = _network(options.folder, options.network)
    with _one_thread():
        return _features(network, torch.zeros(1, network.audio_samples), options.features).shape[1]


def files(options: EncoderOptions) -> tuple[str, str]:
    """The files of the network in its folder."""
    return "encoder.json", f"{options.network}.safetensors"


@lru_cache(maxsize=1)
def _network(folder: str, name: str) -> "Correspondence":
    """Raises EarshotError without a folder, as `load_correspondence`, and for a network of two channels."""
    from earshot.networks.device import on_device
    from earshot.networks.files import load_correspondence

    if not is_present(folder):
        raise EarshotError(f"encoder.folder is {folder}, expected a folder of encoders, such as models/correspond")
    network = load_correspondence(Path(folder), name)
    if network.audio_channels != 1:
        actual = f"{network.architecture['name']} takes {network.audio_channels} channels of sound"
        raise EarshotError(f"{folder}: {actual}, expected a network of one, such as ave")
    return on_device(network)


def _features(network: "Correspondence", waveforms: "Tensor", kind: str) -> "Tensor":
    import torch

    with torch.inference_mode():
        waveforms = waveforms.to(network.channel_mean.device)
        if kind == "embedding":
            return network.embed_audio(waveforms).float().cpu()
        return torch.relu(network.audio_maps(waveforms)).amax((2, 3)).float().cpu()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch with one thread: sums, and so descriptors, depend on their number."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


DESCRIPTOR = Descriptor(dimensions=dimensions, describe=describe, params=EncoderOptions, files=files)
