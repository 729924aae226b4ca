"""Image and sound files of benchmarks, decoded in child processes.

A child sees the bytes of a file and nothing else: it opens no file of the user, writes none and connects to nobody. A
file that hangs or crashes its decoder, or takes it over, costs the benchmark an error of one line.
"""

import atexit
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any

import numpy as np
import soundfile
from PIL import Image, UnidentifiedImageError

from earshot.core.errors import EarshotError
from earshot.core.messages import first_line
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.core.untrusted import MAX_DOCUMENT_BYTES, MAX_IMAGE_PIXELS, check_sound, read_document

FORMATS = ("JPEG", "PNG")  # Pillow's other decoders start programs (EPS), or are ones that nobody has asked for
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # of files of these formats, in folders of images
MAX_SOUND_BYTES = 240_000_000  # of a file: 600 s of 48 kHz stereo as float32, the largest that `check_sound` allows
# Largest resident size, measured: 714 MB for a JPEG of 50 megapixels, 691 MB for 600 s of 48 kHz stereo in float32.
LIMITS = Limits(60.0, memory=5 << 28, file_size=0, starts_processes=False, reads=())


class GuardedReader:
    """Decodes files with `work`, a function of their bytes, in child processes; threads may share it.

    There are as many children as threads that decode at once. They end with this process.

    Args:
        work: a function of an importable module. Raises OSError or ValueError for bytes that it cannot decode.
        fault: what messages say of a file that cannot be decoded.
        most: bytes of a file.
    """

    def __init__(self, work: Callable[[bytes], dict[str, Any]], fault: str, most: int = MAX_DOCUMENT_BYTES) -> None:
        self.work, self.fault, self.most = work, fault, most
        self._idle: LifoQueue[ChildProcess] = LifoQueue()
        # The kernel ends a child with the thread that started it, so that thread has to stay.
        self._starter = ThreadPoolExecutor(1)

    def read(self, file: Path) -> dict[str, Any]:
        """What `work` returns for the bytes of a file.

        Raises EarshotError for a file that is missing, larger than `most` bytes, or cannot be decoded within LIMITS.
        """
        try:
            result = self._run(read_document(file, self.most))
        except (OSError, RuntimeError) as error:
            raise self._error(file, " ".join(str(error).split())[:200]) from None
        if isinstance(result, Failure):
            raise self._error(file, _reason(result))
        if "refused" in result:
            raise self._error(file, result["refused"])
        return result

    def _run(self, data: bytes) -> Any:
        result = self._run_once(data)
        # Something else may have killed the child.
        return self._run_once(data) if isinstance(result, Failure) and not result.hung else result

    def _run_once(self, data: bytes) -> Any:
        try:
            child = self._idle.get_nowait()
        except Empty:
            child = self._starter.submit(self._start).result()
        result = child.run(data)
        if not isinstance(result, Failure):
            self._idle.put(child)
        return result

    def _start(self) -> ChildProcess:
        child = ChildProcess(_Refusing(self.work), LIMITS)
        child.start()
        atexit.register(child.__exit__)
        return child

    def _error(self, file: Path, reason: str) -> EarshotError:
        return EarshotError(f"{file}: {self.fault} ({reason}); restore the file")


def _reason(failure: Failure) -> str:
    if failure.hung:
        return f"not decoded within {LIMITS.seconds:g} s"
    if failure.out_of_memory:
        return f"needs more than {(LIMITS.memory or 0) >> 20} MB of memory"
    return f"the decoder crashed ({failure.ending})"


class _Refusing:
    """The work of a child: what it raises for bad bytes is a result, so that its message comes without a trace."""

    def __init__(self, work: Callable[[bytes], dict[str, Any]]) -> None:
        self.work = work

    def __call__(self, data: bytes) -> dict[str, Any]:
        try:
            return self.work(data)
        except MemoryError:
            raise
        except Exception as error:  # decoders raise all kinds of errors for damaged files
            return {"refused": first_line(error)[:200]}


def read_image_file(file: Path) -> np.ndarray:
    """A JPEG or PNG at its own size: uint8 (height, width, 3). A PNG loses its transparency.

    Raises EarshotError for a file that is missing, of another format, or of more than 50 megapixels.
    """
    return _pixels(_IMAGES.read(file), 3)


def read_mask_file(file: Path) -> np.ndarray:
    """The values of the px of a PNG with a palette or of gray: uint8 (height, width).

    Raises EarshotError as `read_image_file`, and for a PNG of colors.
    """
    return _pixels(_MASKS.read(file), 1)[..., 0]


def read_sound_file(file: Path) -> tuple[np.ndarray, int]:
    """A sound file: float32 (samples, channels) in [-1, 1], and its rate in Hz.

    Raises EarshotError if the file cannot be read, or if its header states a rate or a length beyond `check_sound`.
    """
    result = _SOUNDS.read(file)
    samples = np.frombuffer(bytearray(result["samples"]), np.float32)
    return samples.reshape(-1, result["channels"]), result["rate"]


def _pixels(result: dict[str, Any], channels: int) -> np.ndarray:
    # A bytearray, because the array is to be writable.
    return np.frombuffer(bytearray(result["pixels"]), np.uint8).reshape(result["height"], result["width"], channels)


# What follows runs in the children.


def decode_image(data: bytes) -> dict[str, Any]:
    """The pixels of an image, RGB, row by row."""
    with _opened(data, FORMATS) as image:
        if image.format == "PNG":
            return _fields(_decode_png(data))
        return {"height": image.height, "width": image.width, "pixels": image.convert("RGB").tobytes()}


def decode_mask(data: bytes) -> dict[str, Any]:
    """The values of the pixels of a mask, row by row."""
    with _opened(data, ("PNG",)) as image:
        if image.mode not in ("P", "L"):
            raise ValueError(f"its mode is {image.mode}, expected a palette")
        return {"height": image.height, "width": image.width, "pixels": image.tobytes()}


def decode_sound(data: bytes) -> dict[str, Any]:
    """The samples of a sound, float32, channels within samples."""
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            check_sound(sound.frames, sound.channels, sound.samplerate)
            samples = sound.read(dtype="float32", always_2d=True)
            return {"samples": samples.tobytes(), "channels": sound.channels, "rate": sound.samplerate}
    except soundfile.LibsndfileError as error:
        raise ValueError(error.error_string) from None  # its own message names an object of Python


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError:
        raise ValueError(f"not a {' or '.join(formats)}") from None  # its own message names an object of Python
    if image.width * image.height > MAX_IMAGE_PIXELS:
        size = f"{image.width} x {image.height}"
        raise ValueError(f"{size} pixels, expected at most {MAX_IMAGE_PIXELS / 1e6:g} megapixels")
    return image


def _decode_png(data: bytes) -> np.ndarray:
    """uint8 (height, width, 3), without transparency; of a PNG of 16 bits, values are scaled and rounded.

    OpenCV decodes it: Pillow cuts 16 bits to 8.
    """
    import cv2  # takes as long to import as all else here, and most images are JPEG

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("not a whole PNG")
    if image.dtype == np.uint16:
        image = ((image.astype(np.int32) * 255 + 32767) // 65535).astype(np.uint8)
    return image[:, :, 2::-1] if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)


def _fields(pixels: np.ndarray) -> dict[str, Any]:
    return {"height": pixels.shape[0], "width": pixels.shape[1], "pixels": pixels.tobytes()}


_IMAGES = GuardedReader(decode_image, "cannot be read as an image")
_MASKS = GuardedReader(decode_mask, "cannot be read as an image")
_SOUNDS = GuardedReader(decode_sound, "cannot be read as sound", MAX_SOUND_BYTES)
