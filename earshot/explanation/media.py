"""Images and sounds in formats that browsers support (JPEG, PNG, MP3), and maps laid over images."""

import io
from functools import lru_cache

import matplotlib
import numpy as np
import soundfile
import soxr
from PIL import Image, ImageEnhance, UnidentifiedImageError

from earshot.core.errors import EarshotError

LONGEST_SIDE = 256  # px of an image in an exhibit
JPEG_QUALITY = 85
GRAPH_COLORS, HEAT_COLORS = "magma", "inferno"  # both perceptually uniform: equal steps look equal
STEPS = 64  # colors of a graph: more are not visible, and PNG is half as large as with 256
# Saturation and brightness of an image under a map, reduced so that they do not look like the map; and the opacity of
# the map at its maximum.
COLOR_KEPT, LIGHT_KEPT, OPAQUE = 0.3, 0.7, 0.8
COCHLEAGRAM_STEP = 4  # envelope samples of 1/400 s a pixel: 375 px for 3.75 s
COCHLEAGRAM_ROWS = 2  # px a channel
COCHLEAGRAM_LEAST = 0.1  # minimum of the brightest level, so that silence is dark: a tone of -67 dB
SPECTROGRAM_RANGE = np.log(1e8)  # black below this distance from the maximum: 80 dB
MP3_RATES, MP3_RATE = (32_000, 44_100, 48_000), 48_000  # Hz: rates that are kept, and the rate for all others
MP3_LEVEL = 0.885  # in libsndfile's range: 64 kbit/s


def read_image(jpeg: bytes | memoryview) -> Image.Image:
    """An RGB image. Raises EarshotError for bytes that are not an image."""
    try:
        return Image.open(io.BytesIO(jpeg), formats=("JPEG", "PNG")).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise EarshotError(f"a frame is not an image ({error}); run the stage extract again") from None


def jpeg_of(image: Image.Image, longest: int = LONGEST_SIDE) -> bytes:
    """An image as JPEG, scaled down if a side has more than `longest` px."""
    if max(image.size) > longest:
        image = image.copy()
        image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def png_of(image: Image.Image) -> bytes:
    """An image as PNG, which keeps every pixel."""
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def smaller_jpeg(jpeg: bytes | memoryview, longest: int = LONGEST_SIDE) -> bytes:
    """A JPEG, scaled down if a side has more than `longest` px, else unchanged. Raises as `read_image` does."""
    image = read_image(jpeg)
    return bytes(jpeg) if max(image.size) <= longest else jpeg_of(image, longest)


def graph_png(values: np.ndarray) -> bytes:
    """Values from 0 to 1, (rows, columns), as PNG with colors from dark to light; the first row is at the bottom."""
    steps = np.round(np.clip(values[::-1], 0, 1) * (STEPS - 1)).astype(np.uint8)
    image = Image.fromarray(steps, "L").convert("P")
    image.putpalette(palette(GRAPH_COLORS, STEPS).tobytes())
    return png_of(image)


def cochleagram_png(envelopes: np.ndarray) -> bytes:
    """Compressed envelopes (32, samples at 400 Hz) as PNG, low at the bottom: 64 px high, 100 px a second.

    White is the level that 1 % of the values exceed, black is silence.
    """
    columns = envelopes.shape[1] // COCHLEAGRAM_STEP
    binned = envelopes[:, : columns * COCHLEAGRAM_STEP].reshape(len(envelopes), columns, -1).mean(2)
    brightest = max(np.percentile(binned, 99), COCHLEAGRAM_LEAST)
    return graph_png((binned / brightest).repeat(COCHLEAGRAM_ROWS, axis=0))


def spectrogram_png(log_power: np.ndarray) -> bytes:
    """Natural logarithms of power (frequencies, times) as PNG of as many px, low at the bottom, range 80 dB."""
    return graph_png((log_power - log_power.max()) / SPECTROGRAM_RANGE + 1)


def mp3_of(sound: np.ndarray, rate: int) -> bytes:
    """A sound, float32 (samples,) in [-1, 1], as mono MP3 of 64 kbit/s, at the same loudness."""
    if rate not in MP3_RATES:
        sound, rate = soxr.resample(sound, rate, MP3_RATE, quality="HQ"), MP3_RATE
    file = io.BytesIO()
    soundfile.write(file, sound, rate, format="MP3", bitrate_mode="CONSTANT", compression_level=MP3_LEVEL)
    return file.getvalue()


def under_map(image: Image.Image, values: np.ndarray) -> Image.Image:
    """An image under a map from 0 to 1 (height, width) of any size: higher values are lighter and more opaque.

    The map is scaled to the image bilinearly.
    """
    paler = ImageEnhance.Brightness(ImageEnhance.Color(image).enhance(COLOR_KEPT)).enhance(LIGHT_KEPT)
    scaled = Image.fromarray(np.asarray(values, np.float32), "F").resize(image.size, Image.Resampling.BILINEAR)
    heat = np.clip(np.asarray(scaled), 0, 1)  # (height, width)
    colors = palette(HEAT_COLORS, 256)[np.round(heat * 255).astype(np.uint8)]  # (height, width, 3)
    opacity = OPAQUE * heat[..., None]
    mixed = np.asarray(paler) * (1 - opacity) + colors * opacity
    return Image.fromarray(np.round(mixed).astype(np.uint8))


def stretched(values: np.ndarray) -> np.ndarray:
    """Values scaled so that the minimum is 0 and the maximum is 1; all 0 if they are all equal."""
    spread = values.max() - values.min()
    return (values - values.min()) / spread if spread else np.zeros_like(values)


@lru_cache
def palette(name: str, steps: int) -> np.ndarray:
    """The colors of a matplotlib colormap from low to high: uint8 (steps, 3)."""
    return np.round(matplotlib.colormaps[name](np.linspace(0, 1, steps))[:, :3] * 255).astype(np.uint8)
