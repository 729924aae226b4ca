"""The descriptor `mfcc`: mel-frequency cepstral coefficients.

Mahadev and Lu (2020), section 3.2, compare them with textures.
"""

import librosa
import numpy as np

from earshot.sound.description import Descriptor

MFCC_RATE = 22_050  # Hz
COEFFICIENTS = 20
FRAMES = 155


def mfccs(windows: np.ndarray, sample_rate: int) -> np.ndarray:
    """20 coefficients of 155 frames, C order: windows of 3.75 s, float32 (moments, samples), to (moments, 3100).

    The paper gives this size, but librosa's default hop does not yield 155 frames in 3.75 s. Here the hop is a 154th of
    the window.
    """
    resampled = librosa.resample(windows, orig_sr=sample_rate, target_sr=MFCC_RATE)
    hop = resampled.shape[1] // (FRAMES - 1)
    # One window a call, because librosa clips 80 dB below the loudest value of all windows of a call.
    coefficients = [
        librosa.feature.mfcc(y=window, sr=MFCC_RATE, n_mfcc=COEFFICIENTS, n_fft=2048, hop_length=hop).ravel()
        for window in resampled
    ]
    return np.array(coefficients, np.float32)


DESCRIPTOR = Descriptor(
    dimensions=COEFFICIENTS * FRAMES,  # 3100
    describe=lambda batch, options: mfccs(batch.windows, batch.sample_rate),
)
