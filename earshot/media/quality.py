"""Quality checks: measurements of a clip while it is decoded, and the flags or refusals that follow from them.

They use the extracted sound and a few thumbnails of frames that are decoded anyway:

- `peak`: the loudest sample, 0 to 1 of full scale; `clipped`: the share of samples at full scale. Sound that was
  clipped and then attenuated goes unnoticed.
- `change`: gray levels of 255 by which the liveliest hundredth of the image changes over the clip. Compression alone
  changes a still image by up to 9.
- Fingerprints, by which the same sound or video is recognized under another name; compressing it again hardly changes
  them. They are taken at fixed fractions of a clip's length, so a part of a clip does not match the whole. About half
  of the bits of two different clips differ. Some clips have no fingerprint: sounds with too few events, and videos that
  hardly change, since two recordings of one place would match.

The sound's fingerprint has 32 x 8 bits: whether the step of log energy from one of nine bands to the next grew from one
of 33 parts of the clip to the next. The video's has 8 x 8 x 8: whether it brightens from left to right, in eight
thumbnails (the difference hash).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earshot.core.channels import channel_if_canceled
from earshot.corpus.ledger import Refusal

FULL_SCALE = 32767
# The sound's fingerprint. Every codec preserves the bands of a telephone; a part is the sum of four short spectra.
PARTS, BANDS, SPECTRA = 33, 9, 4
LOWEST, HIGHEST = 200.0, 3400.0  # Hz
SPECTRUM_SECONDS = 0.05
ENERGY_FLOOR = 1e-5  # of the highest energy of any band and part: less energy hardly counts
# The video's fingerprint, and the measure of its change.
THUMBNAILS, THUMBNAIL_SIDE = 8, 32
ROWS, COLUMNS = 8, 9
LIVELIEST = 99  # percentile, over the pixels of a thumbnail, of their change
# Below these shares of ones, or of bits that differ between the halves of a clip, a clip has no fingerprint. All of 79
# real clips have more than .4 of ones in their sounds and .3 in their videos. Sounds that are silent but for a moment
# have less, and their fingerprints differ in as little as .18; no two of 433 other recordings differ in less than .33.
MIN_AUDIO_ONES, MIN_IMAGE_ONES = 0.35, 0.2
HALVES_DIFFER = 0.16  # twice the share by which fingerprints of one video may differ


@dataclass(frozen=True)
class Measured:
    """Measurements of a clip; fingerprints in hexadecimal, "" for none. The defaults pass every check."""

    peak: float = 1.0
    clipped: float = 0.0
    change: float = 255.0
    audio_print: str = ""
    image_print: str = ""


def measure(samples: np.ndarray, rate: int, thumbnails: Sequence[np.ndarray]) -> Measured:
    """Measure a clip: its sound, int16 (samples, channels), and thumbnails, uint8 (32, 32), at `thumbnail_places`."""
    images = np.stack(thumbnails).astype(np.int16)  # (thumbnails, 32, 32)
    loudest = min(max(int(samples.max(initial=0)), -int(samples.min(initial=0))), FULL_SCALE)
    return Measured(
        peak=loudest / FULL_SCALE,
        clipped=_at_full_scale(samples) / samples.size if loudest == FULL_SCALE else 0.0,
        change=float(np.percentile(np.ptp(images, axis=0), LIVELIEST)),
        audio_print=audio_print(samples, rate).hex(),
        image_print=image_print(images).hex(),
    )


def _at_full_scale(samples: np.ndarray) -> int:
    return int(np.count_nonzero(samples >= FULL_SCALE) + np.count_nonzero(samples <= -FULL_SCALE))


def thumbnail_places() -> list[float]:
    """Where in [0, 1) of a clip its thumbnails are taken."""
    return [(number + 0.5) / THUMBNAILS for number in range(THUMBNAILS)]


def audio_print(samples: np.ndarray, rate: int) -> bytes:
    """The fingerprint of a sound, int16 (samples, channels): 32 bytes, or empty."""
    size = round(SPECTRUM_SECONDS * rate)
    edges = np.round(np.geomspace(LOWEST, HIGHEST, BANDS + 1) * size / rate).astype(int)
    if len(samples) < size or edges[-1] > size // 2 + 1:
        return b""
    starts = np.linspace(0, len(samples) - size, PARTS * SPECTRA).astype(int)
    channel = channel_if_canceled(np.concatenate([samples[start : start + size] for start in starts], dtype=np.float32))
    samples = samples if channel is None else samples[:, [channel]]
    window = np.hanning(size).astype(np.float32)
    # One part at a time: allocating arrays of all parts for every clip costs several times as much.
    spectra = [_spectra(samples, part, window)[:, : edges[-1]] for part in starts.reshape(PARTS, SPECTRA)]
    powers = np.abs(np.stack(spectra)) ** 2  # (33, 4, bins)
    energies = np.add.reduceat(powers, edges[:-1], axis=2).sum(1)  # (33, 9)
    steps = np.diff(np.log(energies + ENERGY_FLOOR * energies.max() + 1e-9), axis=1)
    bits = np.diff(steps, axis=0) > 0  # (32, 8)
    return np.packbits(bits).tobytes() if bits.mean() >= MIN_AUDIO_ONES else b""


def _spectra(samples: np.ndarray, starts: np.ndarray, window: np.ndarray) -> np.ndarray:
    """The spectra of all channels together, from each of `starts` on: complex64 (starts, bins)."""
    pieces = np.stack([samples[start : start + len(window)] for start in starts])  # (starts, samples, channels)
    mono = pieces[:, :, 0].astype(np.float32)
    if pieces.shape[2] == 2:
        mono += pieces[:, :, 1]
    return np.fft.rfft(mono * window)


def image_print(images: np.ndarray) -> bytes:
    """The fingerprint of a video, from its thumbnails (8, 32, 32): 64 bytes, or empty."""
    rows = images.reshape(THUMBNAILS, ROWS, -1, THUMBNAIL_SIDE).mean(2, dtype=np.float32)
    cells = rows @ _shares(THUMBNAIL_SIDE, COLUMNS)  # (8, 8, 9)
    bits = np.diff(cells, axis=2) > 0
    halves = np.split(bits, 2)
    distinctive = bits.mean() >= MIN_IMAGE_ONES and np.mean(halves[0] != halves[1]) >= HALVES_DIFFER
    return np.packbits(bits).tobytes() if distinctive else b""


def _shares(pixels: int, cells: int) -> np.ndarray:
    """The share of each pixel of a line in each of so many cells: float32 (pixels, cells)."""
    edges = np.linspace(0, pixels, cells + 1)
    first, last = np.arange(pixels)[:, None], np.arange(1, pixels + 1)[:, None]
    overlaps = np.minimum(last, edges[1:]) - np.maximum(first, edges[:-1])
    return (np.maximum(overlaps, 0) * cells / pixels).astype(np.float32)


def quality_flags(measured: Measured, quality) -> list[str]:
    """The flags of a clip under the parameters `extract.quality`.

    Raises Refusal where one of them is set to refuse.
    """
    checks = {
        "silent": (measured.peak < quality.silent_peak, f"no sample above {measured.peak:.2g} of full scale"),
        "still": (measured.change <= quality.still_change, f"the image changes by {measured.change:.0f} of 255"),
        "clipped": (measured.clipped > quality.clipped_share, f"{measured.clipped:.2%} of the samples at full scale"),
    }
    faults = {reason: detail for reason, (fails, detail) in checks.items() if fails}
    for reason, detail in faults.items():
        if getattr(quality, reason) == "refuse":
            raise Refusal(reason, detail)
    return [reason for reason in faults if getattr(quality, reason) == "flag"]
