"""From picture files to rows of features: of an encoder's layers, or of colours."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.io import ImageReadMode, decode_image, read_file
from torchvision.transforms.functional import pil_to_tensor
from tqdm import tqdm

from earshot.core.errors import EarshotError
from earshot.networks.device import chosen_device
from earshot.networks.files import load_encoder

BATCH = 64
# What stands before a metric's name for each of the encoders that a folder may hold.
PREFIXES = {"encoder": "", "wrong_sound": "wrong_sound_", "random": "random_"}
Loaded = TypeVar("Loaded", bound=nn.Module)
COLOUR_STEPS = 8  # of each of red, green and blue


def load_encoders(folder: Path, load: Callable[[Path, str], Loaded] = load_encoder) -> dict[str, Loaded]:
    """The trained network of a folder, the same architecture with random weights, and the control where it was trained.

    The keys are the prefixes of their metrics. `load` is one of those of earshot/networks/files, for networks of other
    kinds. Raises EarshotError as it does.
    """
    there = [name for name in PREFIXES if name != "wrong_sound" or (folder / "wrong_sound.safetensors").exists()]
    return {PREFIXES[name]: load(folder, name) for name in there}


def read_whole_picture(file: Path) -> Tensor:
    """A picture as it is: uint8 (3, height, width).

    Raises EarshotError for a file that is missing or no picture.
    """
    try:
        return _decode(file)
    except (OSError, RuntimeError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EarshotError(f"{file}: cannot be read as a picture ({reason}); restore the file") from None


def read_picture(file: Path, resize: int, crop: int) -> Tensor:
    """A picture squeezed to resize x resize px and its middle crop x crop: uint8 (3, crop, crop).

    Raises EarshotError for a file that is missing or no picture.
    """
    picture = read_whole_picture(file)
    squeezed = interpolate(picture[None], (resize, resize), mode="bilinear", antialias=True)[0]
    first = (resize - crop) // 2
    return squeezed[:, first : first + crop, first : first + crop]


def require_pictures(files: Sequence[Path]) -> None:
    """Raise EarshotError where a file is missing, before the first is read."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        more = f" and {len(missing) - 1} more of {len(files)}" if len(missing) > 1 else ""
        raise EarshotError(f"{missing[0]}{more}: no such picture, but the benchmark's lists name it; restore the files")


def picture_batches(files: Sequence[Path], resize: int, crop: int, title: str) -> Iterator[tuple[slice, Tensor]]:
    """Pictures in batches, (rows, uint8 (pictures, 3, crop, crop)), behind a progress bar.

    Raises EarshotError where the crop is larger than the picture it is taken from, and for a file that is missing.
    """
    if crop > resize:
        raise EarshotError(f"resize is {resize} px, wanted at least the encoder's {crop}; set it in params.yaml")
    require_pictures(files)
    for first in tqdm(range(0, len(files), BATCH), desc=title, unit="batch", leave=False):
        chosen = files[first : first + BATCH]
        yield slice(first, first + len(chosen)), torch.stack([read_picture(file, resize, crop) for file in chosen])


@torch.inference_mode()
def layer_features(
    encoder: nn.Module, files: Sequence[Path], layers: Sequence[str], resize: int, title: str
) -> dict[str, Tensor]:
    """Activations after the ReLU of the layers asked for, float32 (pictures, dimensions) each, on the CPU."""
    device = chosen_device()
    encoder = encoder.to(device, memory_format=torch.channels_last)
    features: dict[str, Tensor] = {}
    for rows, pictures in picture_batches(files, resize, encoder.image_size, title):
        for layer, values in encoder.features(pictures.to(device), layers).items():
            if layer not in features:
                features[layer] = torch.empty(len(files), values.shape[1])
            features[layer][rows] = values.float().cpu()
    return features


def colour_features(files: Sequence[Path], resize: int, crop: int) -> Tensor:
    """Colour histograms: the root of the share of each of 8 x 8 x 8 colours, float32 (pictures, 512).

    The root makes the distance between histograms Hellinger's, for which a linear SVM is the stronger control.
    """
    features = torch.empty(len(files), COLOUR_STEPS**3)
    for rows, pictures in picture_batches(files, resize, crop, "colours"):
        steps = (pictures // (256 // COLOUR_STEPS)).int()  # (pictures, 3, crop, crop)
        codes = (steps[:, 0] * COLOUR_STEPS + steps[:, 1]) * COLOUR_STEPS + steps[:, 2]
        for row, code in zip(range(rows.start, rows.stop), codes, strict=True):
            shares = torch.bincount(code.flatten(), minlength=COLOUR_STEPS**3) / code.numel()
            features[row] = shares.sqrt()
    return features


def _decode(file: Path) -> Tensor:
    """uint8 (3, height, width); Pillow reads what torchvision does not, four-colour JPEGs for one."""
    try:
        return decode_image(read_file(str(file)), ImageReadMode.RGB)
    except RuntimeError:
        with Image.open(file) as picture:
            return pil_to_tensor(picture.convert("RGB"))
