"""Writing rendered clips, images and sounds as mp4 (H.264 and AAC), jpg and wav."""

import tempfile
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import soundfile
from PIL import Image

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.world.scenes import RenderedClip

JPEG_QUALITY = 90


def write_video(path: Path, clip: RenderedClip) -> None:
    """Write a clip as mp4, H.264 and AAC, by piping raw frames to ffmpeg; the bytes are the same on every run.

    Raises EarshotError if ffmpeg fails.
    """
    height, width = clip.frames.shape[1:3]
    with tempfile.NamedTemporaryFile(suffix=".s16") as sound, write_atomically(path) as temporary:
        sound.write(sixteen_bits(clip.sound).tobytes())
        sound.flush()
        image = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=clip.frame_rate)
        audio = ffmpeg.input(sound.name, format="s16le", ar=clip.audio_rate, ac=1)
        command = ffmpeg.output(
            image, audio, str(temporary), format="mp4",
            vcodec="libx264", preset="veryfast", crf=24, pix_fmt="yuv420p", threads=1,
            acodec="aac", audio_bitrate="64k", aac_coder="fast", fflags="+bitexact", movflags="+faststart",
        )  # fmt: skip
        try:
            command.run(
                cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=clip.frames.tobytes(), quiet=True, overwrite_output=True
            )
        except ffmpeg.Error as error:
            last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise EarshotError(f"{path}: ffmpeg failed to write it: {' '.join(last)}") from None


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8 (height, width, 3), as JPEG."""
    with write_atomically(path) as temporary:
        Image.fromarray(image).save(temporary, format="JPEG", quality=JPEG_QUALITY)


def write_recording(path: Path, sound: np.ndarray, rate: int) -> None:
    """Write a sound, float32 (samples,) in [-1, 1], as a 16-bit wav."""
    with write_atomically(path) as temporary:
        soundfile.write(temporary, sixteen_bits(sound), rate, format="WAV", subtype="PCM_16")


def sixteen_bits(sound: np.ndarray) -> np.ndarray:
    """Little-endian 16-bit samples of a sound in [-1, 1]."""
    return np.round(sound * 32767).astype("<i2")
