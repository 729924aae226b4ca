"""The descriptor `spectrum`: the level of each cochlear channel at the time of the frame."""

import numpy as np

from earshot.sound.cochlea import CHANNELS, ENVELOPE_RATE, ENVELOPE_SAMPLES
from earshot.sound.description import Descriptor

HALF_INTERVAL = 1 / 60  # s; Owens 2016, section 3.3: 33.3 ms, the duration of one frame, centered on the frame


def spectra(envelopes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Mean of each channel around `centers` (s): (moments, 32, 1500) and (moments,) to (moments, 32).

    The envelopes are compressed and not divided by their loudness.
    """
    times = np.arange(ENVELOPE_SAMPLES) / ENVELOPE_RATE
    centers = np.asarray(centers)[:, None]
    near = (times >= centers - HALF_INTERVAL) & (times < centers + HALF_INTERVAL)  # (moments, 1500)
    weights = near / near.sum(axis=1, keepdims=True)
    return np.einsum("mct,mt->mc", envelopes, weights.astype(envelopes.dtype))


DESCRIPTOR = Descriptor(dimensions=CHANNELS, describe=lambda batch, options: spectra(batch.envelopes, batch.centers))
