"""The descriptor `texture`: 502 statistics of the cochlea's envelopes (earshot/sound/texture.py)."""

import numpy as np

from earshot.sound.cochlea import CHANNELS, channel_frequencies
from earshot.sound.description import Batch, Descriptor
from earshot.sound.texture import (
    MODULATION_CENTERS,
    PAIRS,
    TEXTURE_GROUPS,
    TEXTURE_SIZE,
    TextureOptions,
    texture_statistics,
)


def describe(batch: Batch, options: TextureOptions) -> np.ndarray:
    """Textures of a batch: float32 (moments, 502)."""
    return texture_statistics(batch.envelopes, options.modulation_norm)


def charts(texture: np.ndarray, options: TextureOptions) -> dict[str, np.ndarray]:
    """Mean and spread (32,), correlation (32 * 32,) and modulation (32 * 10,) of a texture (502,), and their axes.

    The axes are the frequencies of the channels (32,) and the rates of the modulation (10,), both in Hz. Correlations
    that are not part of a texture are NaN.
    """
    moments = texture[TEXTURE_GROUPS["moments"]]
    correlation = np.full((CHANNELS, CHANNELS), np.nan, np.float32)
    below, above = PAIRS.T
    correlation[below, above] = correlation[above, below] = texture[TEXTURE_GROUPS["correlation"]]
    return {
        "frequencies": channel_frequencies(options.outer_channels),
        "rates": MODULATION_CENTERS,
        "mean": moments[:CHANNELS],
        "spread": moments[CHANNELS:],
        "correlation": correlation.ravel(),
        "modulation": texture[TEXTURE_GROUPS["modulation"]],
    }


DESCRIPTOR = Descriptor(
    dimensions=TEXTURE_SIZE, describe=describe, params=TextureOptions, parts=TEXTURE_GROUPS, charts=charts
)
