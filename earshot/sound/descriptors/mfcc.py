"""The descriptor `mfcc`: mel-frequency cepstral coefficients, by the published code of Mahadev and Lu (2020).

Their section 3.2 compares MFCCs with textures. Where report and code (rowhanm/ambient-sound-self-supervision) differ,
this module follows the code. utils/create_dataset.py resamples sound to 21 kHz and cuts it every 3.75 s with FFmpeg,
which cuts between packets of 1024 samples: 77 packets are 78,848 samples, 98 more than 3.75 s.
pretext_training/get_mfcc.py calls librosa 0.7.1 (requirements.txt) with its defaults, which gives 155 frames.
"""

from functools import lru_cache

import librosa
import numpy as np

from earshot.sound.description import Descriptor

MFCC_RATE = 21_000  # Hz
SEGMENT = 78_848  # samples
COEFFICIENTS = 20
FFT_SAMPLES, HOP = 2048, 512
FRAMES = 1 + SEGMENT // HOP  # 155


def mfccs(windows: np.ndarray, sample_rate: int) -> np.ndarray:
    """20 coefficients of 155 frames, C order: windows of 3.75 s, float32 (moments, samples), to (moments, 3100).

    A window is 2.3 ms shorter than a published segment at either end. It is padded by reflection, as librosa 0.7.1 pads
    the 49 ms that the outer frames need beyond the segment; later versions pad with zeros.
    """
    resampled = librosa.resample(windows, orig_sr=sample_rate, target_sr=MFCC_RATE)
    missing = SEGMENT - resampled.shape[1]
    segments = np.pad(resampled, ((0, 0), (missing // 2, missing - missing // 2)), mode="reflect")
    return np.array([_coefficients(segment) for segment in segments], np.float32)


def _coefficients(segment: np.ndarray) -> np.ndarray:
    """One window a call, because librosa clips 80 dB below the loudest value of all windows of a call."""
    power = np.square(np.abs(librosa.stft(segment, n_fft=FFT_SAMPLES, hop_length=HOP, pad_mode="reflect")))
    levels = librosa.power_to_db(_mel_filters() @ power)
    return librosa.feature.mfcc(S=levels, n_mfcc=COEFFICIENTS).ravel()


@lru_cache
def _mel_filters() -> np.ndarray:
    """Librosa's default: float32 (128, 1025). It would compute them again for each window."""
    return librosa.filters.mel(sr=MFCC_RATE, n_fft=FFT_SAMPLES)


DESCRIPTOR = Descriptor(
    dimensions=COEFFICIENTS * FRAMES,  # 3100
    describe=lambda batch, options: mfccs(batch.windows, batch.sample_rate),
)
