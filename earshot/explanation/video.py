"""Videos for browsers: MP4 with H.264 and AAC, its index first, so that playback starts before the end is read."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
from PIL import Image

from earshot.core.encoding import X264
from earshot.core.errors import EarshotError

SOUND_RATE = 48_000  # Hz: AAC has few rates; all players support this one


def mp4_of(frames: Iterable[Image.Image], size: tuple[int, int], rate: float, flac: bytes, seconds: float) -> bytes:
    """Frames, `rate` per second, and a sound as MP4; the bytes are reproducible.

    Args:
        frames: all of the same even width and height, `size`; they are kept in memory.
        flac: the sound, of one or two channels.
        seconds: the length of the video.

    Raises:
        EarshotError: ffmpeg fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        sound, video = Path(folder, "sound.flac"), Path(folder, "video.mp4")
        sound.write_bytes(flac)
        image = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{size[0]}x{size[1]}", r=rate)
        command = ffmpeg.output(
            image, ffmpeg.input(str(sound)), str(video), format="mp4", t=seconds,
            vcodec="libx264", **X264, crf=24, pix_fmt="yuv420p", threads=1,
            acodec="aac", ar=SOUND_RATE, audio_bitrate="96k", fflags="+bitexact", movflags="+faststart",
        )  # fmt: skip
        try:
            pixels = b"".join(frame.tobytes() for frame in frames)
            command.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=pixels, quiet=True)
        except ffmpeg.Error as error:
            last = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise EarshotError(f"ffmpeg cannot write a video: {' '.join(last)}") from None
        return video.read_bytes()
