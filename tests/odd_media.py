"""Small media files with known content and one oddity each, rendered with ffmpeg, and functions to decode them."""

import io
import subprocess
from dataclasses import replace
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import soundfile
from PIL import Image

from earshot.media.decoding import Decoded, DecodeOptions, decode_clip

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
SECONDS, FRAME_RATE, FLASH = 5, 25, 2.4  # the flash and the beep begin at 2.4 s and last a fifth of a second
BLACK = f"color=black:s=64x48:r={FRAME_RATE}:d={SECONDS}"
# A moving pattern, an asymmetric image whose colors survive JPEG, and a video whose brightness gives the time.
PATTERN = f"testsrc2=s=64x48:r={FRAME_RATE}:d={SECONDS}"
BLEND = f"color=black:s=64x48:r={FRAME_RATE}:d={SECONDS},format=gbrp,geq=r='4*X':g='5*Y':b='128-X-Y'"
DAWN = f"color=black:s=64x48:r={FRAME_RATE}:d={SECONDS},geq=lum='40*T':cb=128:cr=128"
TONE = f"sine=440:r=44100:d={SECONDS}"
MP4 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
LOSSLESS = ("-c:v", "ffv1", "-c:a", "pcm_s16le")

OPTIONS = DecodeOptions(
    places=tuple((i + 0.5) / 8 for i in range(8)),
    frame_size=48,
    jpeg_quality=95,
    window_s=1.0,
    min_duration_s=1.5,
    max_duration_s=60.0,
    max_pixels=10**6,
)


def flashing(at: float = FLASH) -> str:
    """A black video that turns white."""
    return f"{BLACK},drawbox=c=white:t=fill:enable='between(t,{at},{at}+0.19)'"


def beeping(at: float = FLASH) -> str:
    """Silence, then a tone."""
    return f"aevalsrc='if(between(t,{at},{at}+0.2),0.5*sin(6000*t),0)':s=48000:d={SECONDS}"


def ffmpeg(*arguments: object) -> None:
    """Run ffmpeg with these arguments, silently."""
    command = [FFMPEG, "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def render(path: Path, *options: object, image: str | None = PATTERN, sound: str | None = TONE) -> Path:
    """Render lavfi sources into a file; `options` choose codecs and filters."""
    sources = [source for kind in (image, sound) if kind for source in ("-f", "lavfi", "-i", kind)]
    ffmpeg(*sources, *(options or MP4), path)
    return path


def decode(path: Path, **changes: object) -> Decoded:
    """Decode a file in this process, with some of `OPTIONS` changed."""
    with open(path, "rb") as file:
        return decode_clip(file, replace(OPTIONS, **changes))


def images(decoded: Decoded) -> np.ndarray:
    """The images as floats `(frames, height, width, 3)`."""
    return np.stack([np.asarray(Image.open(io.BytesIO(jpeg)), np.float64) for jpeg in decoded.frames])


def samples(decoded: Decoded) -> np.ndarray:
    """The sound as int16 `(samples, channels)`."""
    return soundfile.read(io.BytesIO(decoded.sound), dtype="int16", always_2d=True)[0]
