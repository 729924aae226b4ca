"""Visual textons: the appearance of small patches of a frame, as a histogram over a dictionary of patches.

The visual control of Owens et al. 2016, section 5, clusters such histograms instead of sounds. A network that predicts
these clusters shows how much of the result is owed to sound. Textons are those of Leung and Malik (2001): clusters of
the responses of a filter bank at a pixel. The bank is that of the SUN database's texton histograms (Xiao et al. 2010,
section 3.1): 8 orientations, 2 scales, 2 elongations, a dictionary of 512 entries and the share of the pixels nearest
to each. The paper gives no further detail; the choices here:

- filters come in pairs of an even and an odd one: the second and the first derivative of an elongated Gaussian across
  its length. Each scale also has a center-surround filter, the negative Laplacian of a Gaussian, as in Leung and Malik
  (66 filters in all). Each filter has a mean of 0 and an L1 norm of 1;
- the scales are 1 and 2 px of a frame whose short side is 128 px, the elongations 2 and 3 (Leung and Malik: 3);
- responses r to the luma, 0 to 1, become r log(1 + |r| / .03) / |r|, where |r| is their norm at a pixel (Weber's law;
  Malik, Belongie, Leung and Shi 2001, section 4), so that contrast counts less than pattern;
- pixels are sampled on a grid, every third each way: nine times fewer, and neighbors look alike. (Every fourth would
  always hit the same columns of the 8 x 8 blocks of a JPEG.)
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.labels.kmeans import fit_kmeans
from earshot.labels.tensors import read_tensors

ORIENTATIONS, SCALES, ELONGATIONS = 8, (1.0, 2.0), (2.0, 3.0)
SIDE = 128  # px, the short side of the filtered frames
STRIDE = 3  # px between pixels of the grid
RADIUS = 18  # px, three deviations of the longest filter
WEBER = 0.03  # below it a response counts linearly

TEXTONS_FILE = "textons.safetensors"


@dataclass(frozen=True)
class Textons:
    """The dictionary: contrast-normalized responses of each texton, float32 (textons, 66)."""

    textons: np.ndarray

    def histogram(self, responses: np.ndarray) -> np.ndarray:
        """Responses (pixels, 66) to the share of them nearest to each texton, float32 (textons,)."""
        # |r - t|^2 is smallest where r t - |t|^2 / 2 is largest. For so few textons this is faster than faiss.
        nearest = (responses @ self.textons.T - np.square(self.textons).sum(1) / 2).argmax(1)
        return (np.bincount(nearest, minlength=len(self.textons)) / len(nearest)).astype(np.float32)


def fit_textons(pixels: Iterable[np.ndarray], textons: int, *, iterations: int, restarts: int, seed: int) -> Textons:
    """A dictionary of textons: the k-means centroids of the responses at pixels of training frames.

    Args:
        pixels: responses, float32 arrays (any number, 66).

    Raises:
        EarshotError: there are fewer pixels than textons.
    """
    blocks = list(pixels)
    rows = sum(len(block) for block in blocks)
    if rows < textons:
        message = f"{rows} pixels of training frames are too few for {textons} textons"
        raise EarshotError(f"{message}; give more clips or lower label.textons")
    return Textons(fit_kmeans(blocks, textons, rows=rows, iterations=iterations, restarts=restarts, seed=seed))


def filter_responses(luma: np.ndarray) -> np.ndarray:
    """Contrast-normalized responses at every third pixel each way, float32 (pixels, 66).

    Args:
        luma: float32 (height, width), 0 to 1; mirrored at its edges.
    """
    padded = np.pad(luma, RADIUS, mode="symmetric")
    patches = np.lib.stride_tricks.sliding_window_view(padded, (2 * RADIUS + 1,) * 2)[::STRIDE, ::STRIDE]
    responses = patches.reshape(-1, (2 * RADIUS + 1) ** 2) @ filter_bank()  # (pixels, 66)
    norms = np.linalg.norm(responses, axis=1, keepdims=True)
    return responses * (np.log1p(norms / WEBER) / np.maximum(norms, np.finfo(np.float32).tiny))


@cache
def filter_bank() -> np.ndarray:
    """The filters as columns, float32 (37 x 37, 66).

    First the even and odd ones of each scale, elongation and orientation, then a center-surround filter for each scale.
    """
    y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1].astype(np.float64)
    filters = []
    for scale in SCALES:
        for elongation in ELONGATIONS:
            for angle in np.pi * np.arange(ORIENTATIONS) / ORIENTATIONS:
                along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
                gaussian = np.exp(-0.5 * (np.square(along / elongation) + np.square(across)) / scale**2)
                filters += [(np.square(across / scale) - 1) * gaussian, across * gaussian]
    for scale in SCALES:
        squares = (x**2 + y**2) / scale**2
        filters.append((1 - squares / 2) * np.exp(-squares / 2))
    bank = np.stack(filters, axis=-1).reshape(-1, len(filters))
    bank -= bank.mean(0)
    return (bank / np.abs(bank).sum(0)).astype(np.float32)


def read_luma(jpeg: bytes) -> np.ndarray:
    """A frame's luma, float32 (height, width) from 0 to 1, its short side 128 px.

    Raises EarshotError if the frame cannot be decoded.
    """
    try:
        image = Image.open(io.BytesIO(jpeg), formats=["JPEG"]).convert("L")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise EarshotError(f"not a complete JPEG image ({error}); run the stage extract again") from None
    scale = SIDE / min(image.size)
    width, height = (max(round(side * scale), 1) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255


def save_textons(folder: Path, textons: Textons) -> None:
    """Write textons.safetensors atomically."""
    with write_atomically(folder / TEXTONS_FILE) as path:
        save_file({"textons": textons.textons}, path)


def load_textons(folder: Path) -> Textons:
    """The dictionary that `save_textons` wrote.

    Raises EarshotError if the file is missing, damaged or of another filter bank.
    """
    return Textons(*read_tensors(folder / TEXTONS_FILE, {"textons": (None, filter_bank().shape[1])}))
