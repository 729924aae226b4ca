"""Trained networks as models: those of the stage correspond embed sounds and images, those of pretrain images."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from earshot.core.channels import mix_channels
from earshot.core.errors import EarshotError
from earshot.embedding.model import HOP_S, Input, Model
from earshot.embedding.moments import AT_ONCE
from earshot.networks.audio_visual_base import Correspondence
from earshot.networks.correspondence import is_correspondence
from earshot.networks.crops import crop_roi
from earshot.networks.device import get_device, on_device
from earshot.networks.files import ARCHITECTURE_FILE, load_correspondence, load_encoder, read_architecture
from earshot.networks.network import ImageEncoder
from earshot.networks.two_towers import TwoTowers
from earshot.sound.windows import SILENT_RMS, root_mean_square

MIN_DURATION_S = 0.1  # less is a click; the rest of its window would be silence
DEFAULT_LAYER = "fc7"  # of a network of the stage pretrain: the input of its output layer
ALIGNED = ("ave", "avol", "dual_encoder")  # networks that compare the embeddings of both modalities


class NetworkModel(Model):
    """A network as a model.

    Args:
        network: in eval mode.
        source: the folder in which its files lie.
        layer: one of the network's `probe_layers`, for images; by default the embedding that the network compares with
            sounds, or fc7 of a network of the stage pretrain.

    Raises:
        EarshotError: the network has no such layer, or embeds no single images or sounds.
    """

    min_duration_s = MIN_DURATION_S

    def __init__(self, network: ImageEncoder, source: Path, layer: str | None = None) -> None:
        self.network, self.name, self.source = on_device(network), network.architecture["name"], source
        self.image_size = network.image_size
        if not network.probe_layers:
            raise EarshotError(f"{self.name} embeds no single images or sounds, only both; use ave")
        if layer and layer not in network.probe_layers:
            raise EarshotError(f"{self.name} has no layer {layer!r}; it has {', '.join(network.probe_layers)}")
        self.layer = layer
        if isinstance(network, TwoTowers):
            self.aligned = layer is None and self.name in ALIGNED
            self.audio_rate, self.window_s = network.audio_rate, network.audio_samples / network.audio_rate
            silence = np.zeros((1, network.audio_samples, 1), np.float32)
            self.audio_dimensions = self.embed_windows(silence, network.audio_rate)[0].shape[1]
        black = np.zeros((1, self.image_size, self.image_size, 3), np.uint8)
        self.image_dimensions = self.embed_frames(black).shape[1]

    @classmethod
    def load(cls, folder: Path, weights: str = "encoder", layer: str | None = None) -> "NetworkModel":
        """The network of a folder of the stage pretrain or correspond.

        Raises EarshotError as the loaders of earshot/networks/files do.
        """
        corresponds = is_correspondence(read_architecture(folder / ARCHITECTURE_FILE)["name"])
        load: Callable[[Path, str], ImageEncoder] = load_correspondence if corresponds else load_encoder
        return cls(load(folder, weights), folder, layer)

    def _identity(self) -> Iterator[bytes]:
        yield json.dumps([self.network.architecture, self.layer], sort_keys=True).encode()
        for key, tensor in sorted(self.network.state_dict().items()):
            yield f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()

    def embed_windows(self, windows: np.ndarray, rate: int, hop: int = 0) -> tuple[np.ndarray, np.ndarray]:
        sounds, silent = _sounds(windows, hop)
        return self._computed(self._towers.embed_audio, sounds), silent

    def embed_frames(self, images: np.ndarray) -> np.ndarray:
        return self._computed(lambda planes: self.embed_images(self.network, planes), _planes(images))

    def embed_images(self, network: ImageEncoder, images: Tensor) -> Tensor:
        """Embeddings of uint8 images (n, 3, size, size), by this network or a copy of it: (n, D)."""
        if isinstance(network, Correspondence) and self.layer is None:
            return network.embed_images(images)
        layer = self.layer or DEFAULT_LAYER
        return network.features(images, [layer])[layer]

    def fit_image(self, image: np.ndarray) -> np.ndarray:
        top, left, height, width = crop_roi(image.shape[0], image.shape[1], None)
        square = torch.from_numpy(image[top : top + height, left : left + width].copy()).permute(2, 0, 1)[None]
        size = (self.image_size, self.image_size)
        return interpolate(square, size, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()

    def match(self, audio: Input, images: Input, sample_rate: int | None = None, hop: float = HOP_S) -> np.ndarray:
        images = images if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4 else [images]
        frames = np.stack([self._fitted(image) for image in images])
        compared = self._features(self._towers.compared_images, _planes(frames))
        places = compared.dim() - 2  # 0 for a vector of an image, 2 for a vector at each of its positions

        def scored(windows: np.ndarray, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
            waveforms, silent = _sounds(windows, hop)
            sounds = self._features(self._towers.compared_audio, waveforms)
            with torch.inference_mode():
                scores = self._towers.compare(compared[None], sounds.reshape(len(sounds), *[1] * (1 + places), -1))
            return (scores.amax((2, 3)) if places else scores).cpu().numpy(), silent

        return self._of_windows(scored, audio, sample_rate, hop)[0]

    def localize(self, image: Input, audio: Input, sample_rate: int | None = None, hop: float = HOP_S) -> np.ndarray:
        frame = _planes(self._fitted(image)[None])

        def mapped(windows: np.ndarray, rate: int, hop: int) -> tuple[np.ndarray, np.ndarray]:
            waveforms, silent = _sounds(windows, hop)
            frames = frame.expand(len(waveforms), -1, -1, -1)
            return self._computed(lambda sounds: self._towers.localization_map(frames, sounds), waveforms), silent

        return self._of_windows(mapped, audio, sample_rate, hop)[0]

    @property
    def _towers(self) -> TwoTowers:
        if not isinstance(self.network, TwoTowers):
            raise self._lacks("pairs of images and sounds", "a network of the stage correspond, such as ave")
        return self.network

    def _computed(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> np.ndarray:
        return self._features(function, inputs).float().cpu().numpy()

    @staticmethod
    def _features(function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([function(part) for part in inputs.split(AT_ONCE)])


def _sounds(windows: np.ndarray, hop: int) -> tuple[Tensor, np.ndarray]:
    """Windows (windows, samples, channels), one every `hop` samples or 0, as (windows, samples), and which are silent.

    They overlap in memory if they do in the sound, so that a network computes once what they share.
    """
    mono = windows[:, :, 0] if windows.shape[2] == 1 else np.stack([mix_channels(window) for window in windows])
    silent = root_mean_square(mono) < SILENT_RMS
    length = mono.shape[1]
    # Channels that cancel in some windows are mixed in another way there, so that the windows differ.
    if 0 < hop < length and np.array_equal(mono[1:, :-hop], mono[:-1, hop:]):
        sound = np.concatenate([mono[:-1, :hop].reshape(-1), mono[-1]])
        return torch.from_numpy(sound).to(get_device()).unfold(0, length, hop), silent
    return torch.from_numpy(np.ascontiguousarray(mono)).to(get_device()), silent


def _planes(images: np.ndarray) -> Tensor:
    """(images, size, size, 3) as (images, 3, size, size), on the device."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(get_device())
