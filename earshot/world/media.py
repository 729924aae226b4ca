"""Writing rendered clips, images and sounds as mp4 (H.264 and AAC), jpg and wav."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

from earshot.core.encoding import X264
from earshot.core.files import write_atomically
from earshot.world.scenes import RenderedClip

JPEG_QUALITY = 90


def write_video(path: Path, clip: RenderedClip) -> None:
    """Write a clip as mp4, H.264 and AAC, in this process; the bytes are the same on every run."""
    layout = {"movflags": "+faststart", "fflags": "+bitexact"}
    with write_atomically(path) as temporary, av.open(str(temporary), "w", format="mp4", options=layout) as file:
        rate = Fraction(clip.frame_rate).limit_denominator(1000)
        video = file.add_stream("libx264", rate=rate, options=X264 | {"crf": "24"})
        video.height, video.width = clip.frames.shape[1:3]
        video.pix_fmt, video.thread_count = "yuv420p", 1
        audio = file.add_stream("aac", rate=clip.audio_rate, layout="mono", options={"aac_coder": "fast"})
        audio.bit_rate = 64_000
        sound = av.AudioFrame.from_ndarray(sixteen_bits(clip.sound)[None], format="s16", layout="mono")
        # Without a time, the encoder's delay of 1024 samples would be heard.
        sound.sample_rate, sound.pts, sound.time_base = clip.audio_rate, 0, Fraction(1, clip.audio_rate)
        for image in clip.frames:
            file.mux(video.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(video.encode())
        file.mux([*audio.encode(sound), *audio.encode()])


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
