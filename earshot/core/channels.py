"""One channel of many: the mean of the channels, unless they cancel in it."""

import numpy as np

# The share of the energy of independent channels below which their mean counts as canceled. Two channels of equal
# energy reach it at a correlation of -.99; a voice in one channel, or stereo of any microphones, stays far above it.
CANCELED = 0.01


def mix_channels(sound: np.ndarray) -> np.ndarray:
    """The mean of the channels of a sound, floats (samples, channels), or its loudest channel where the mean cancels.

    The mean of a channel and its inverse, a common fault of cables and of files, is silent although the sound is not.
    Returns (samples,).
    """
    channel = channel_if_canceled(sound)
    return _total(sound) / sound.dtype.type(sound.shape[1]) if channel is None else sound[:, channel].copy()


def channel_if_canceled(sound: np.ndarray) -> int | None:
    """The loudest channel of a sound, floats (samples, channels), if its channels cancel in their mean, else None."""
    with np.errstate(all="ignore"):  # a sound that is not finite keeps its mean, which is not finite either
        columns = [np.ascontiguousarray(sound[:, channel]) for channel in range(sound.shape[1])]
        energies = [float(column @ column) for column in columns]
        total = sum(columns[1:], columns[0])
        canceled = float(total @ total) < CANCELED * sum(energies)
    return int(np.argmax(energies)) if canceled else None


def _total(sound: np.ndarray) -> np.ndarray:
    """The sum of the channels, (samples,): column by column, several times faster than a sum of two by rows."""
    with np.errstate(all="ignore"):
        total = sound[:, 0].copy()
        for channel in range(1, sound.shape[1]):
            total += sound[:, channel]
    return total
