"""What every model has in common: sounds, images and videos in, embeddings with their times out.

Sounds and images come as arrays, as paths, as the bytes of a file, or as lists of these. Files are decoded in a child
process, as the stage extract does.
"""

import hashlib
import importlib
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import real_path
from earshot.core.messages import printable
from earshot.corpus.ledger import Refusal
from earshot.embedding.moments import EmbedWindows, MomentEmbeddings, MomentStream
from earshot.media.stream_process import MediaReader
from earshot.media.streaming import Piece, StreamOptions
from earshot.sound.windows import UnfitSound, as_float32

# Raised by one whenever the same network gives other numbers for the same input: part of every fingerprint.
EMBEDDING_VERSION = 1
HOP_S = 0.1  # as in OpenL3
MAX_CHANNELS = 64  # more are samples of a transposed array
DIGITS = 16  # hexadecimal, of a fingerprint
Unfit = Literal["raise", "nan"]
Input = Any  # an array, a path, bytes, or a list of these


class VideoEmbeddings(NamedTuple):
    """Embeddings of a video on one clock.

    Args:
        audio: float32 (T, D), of the windows of sound; None without sound, or if the model embeds none.
        images: float32 (T, D), of the images displayed then; None without images, or if the model embeds none.
        times: seconds, float64 (T,).
    """

    audio: np.ndarray | None
    images: np.ndarray | None
    times: np.ndarray


class Model(ABC):
    """A network or a descriptor that embeds.

    Attributes:
        name: of the network or the descriptor.
        fingerprint: of all that decides the embeddings: weights, options and the version of this code. Embeddings
            with different fingerprints cannot be compared.
        audio_dimensions, image_dimensions: of an embedding; 0 if the model has none of that modality.
        aligned: whether embeddings of sounds and of images can be compared with each other.
        audio_rate: Hz, to which sounds are resampled; 0 for their own rate.
        window_s, min_duration_s: seconds of a window, and of the shortest sound.
        pads_with_silence: whether silence surrounds a sound; otherwise windows are shifted into it.
        image_size: side of the images in px.
    """

    name: str
    audio_dimensions: int = 0
    image_dimensions: int = 0
    aligned: bool = False
    audio_rate: int = 0
    window_s: float = 0.0
    min_duration_s: float = 0.0
    pads_with_silence: bool = True
    image_size: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        digest = hashlib.sha256(f"earshot embeddings {EMBEDDING_VERSION}".encode())
        for part in self._identity():
            digest.update(part)
        return digest.hexdigest()[:DIGITS]

    @cached_property
    def _reader(self) -> MediaReader:
        return MediaReader()

    @abstractmethod
    def _identity(self) -> Iterator[bytes]:
        """All that decides the embeddings, without the version of the code."""

    def embed_windows(self, windows: np.ndarray, rate: int, hop: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of windows, float32 (windows, samples, channels): float32 (windows, D), and which are silent.

        `hop` is the number of samples from one to the next; 0 if it varies, or if they are of several sounds.

        Raises EarshotError if the model embeds no sounds.
        """
        raise self._lacks("sounds", "a network of the stage correspond, or texture")

    def embed_frames(self, images: np.ndarray) -> np.ndarray:
        """Embeddings of images of the model's size, uint8 (images, size, size, 3): float32 (images, D).

        Raises EarshotError if the model embeds no images.
        """
        raise self._lacks("images", "a network")

    def fit_image(self, image: np.ndarray) -> np.ndarray:
        """The middle square of an image, uint8 (height, width, 3), in the model's size: uint8 (size, size, 3).

        Raises EarshotError if the model embeds no images.
        """
        raise self._lacks("images", "a network")

    def embed_audio(
        self,
        sound: Input,
        sample_rate: int | None = None,
        hop: float = HOP_S,
        center: bool = True,
        *,
        unfit: Unfit = "raise",
    ) -> Any:
        """Embeddings of a sound: float32 (T, D), and their times in seconds, float64 (T,). Of a list: a list of both.

        Args:
            sound: an array (samples,) or (samples, channels), floats in [-1, 1] or int16; or a path, or the bytes of a
                file of sound or video; or a list of these.
            sample_rate: of arrays, Hz; files have their own.
            hop: seconds from one embedding to the next.
            center: whether the window of an embedding is centered on its time, or begins there. The last window is the
                first that reaches the end of the sound.
            unfit: `raise` an error for a sound that is too short, silent from its beginning to its end, or not
                finite; or give `nan` for each window that is silent or holds a value that is not finite, and one such
                row for a sound that is too short.

        Raises:
            UnfitSound: an EarshotError and a ValueError, as `unfit` says, and for an array of another shape or type.
            EarshotError: a file cannot be read, or the model embeds no sounds.
        """
        if not self.audio_dimensions:
            raise self._lacks("sounds", "a network of the stage correspond, or texture")
        if unfit not in ("raise", "nan"):
            raise ValueError(f"unfit is {unfit!r}, expected raise or nan")
        if _is_list(sound):
            return [self.embed_audio(each, sample_rate, hop, center, unfit=unfit) for each in sound]
        return self._of_windows(self.embed_windows, sound, sample_rate, hop, center=center, unfit=unfit)

    def _of_windows(
        self,
        embed: EmbedWindows,
        sound: Input,
        sample_rate: int | None,
        hop: float,
        *,
        center: bool = True,
        unfit: Unfit = "raise",
    ) -> tuple[np.ndarray, np.ndarray]:
        """What `embed` gives for each window of a single sound, and the times; arguments as of `embed_audio`."""
        _check_hop(hop)
        stream = MomentStream(self, hop, center, embed)
        if isinstance(sound, str | Path | bytes):
            of, damage = _name(sound), np.empty(0)
            self._add_file(stream, sound, StreamOptions(audio=True, image_size=0, hop_s=hop))
        else:
            of = "the sound"
            samples, rate = _samples(sound, sample_rate), int(sample_rate or 0)
            damage = np.flatnonzero(~np.isfinite(samples).all(axis=1)) / rate
            if damage.size and unfit == "raise":
                raise UnfitSound(f"{of} holds NaN or infinity at {damage[0]:.3f} s: expected values in [-1, 1]")
            stream.add_sound(np.nan_to_num(samples, posinf=0, neginf=0) if damage.size else samples, rate)
        return self._fit_or_not(stream, damage, of, unfit)

    def _fit_or_not(
        self, stream: MomentStream, damage: np.ndarray, of: str, unfit: Unfit
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings and times of a whole sound; `damage` are the times of values that are not finite."""
        if stream.samples < self.min_duration_s * stream.rate or not stream.samples:
            if unfit == "nan":
                return np.full((1, self.audio_dimensions), np.nan, np.float32), np.zeros(1)
            seconds = stream.samples / max(stream.rate, 1)
            raise UnfitSound(
                f"{of} is too short: {seconds:.2f} s, {self.name} requires {self.min_duration_s:g} s or more"
            )
        stream.finish()
        moments = stream.take()
        assert moments.audio is not None
        if unfit == "raise":
            if moments.silent.all():
                raise UnfitSound(f"{of} is silent; give sound, or unfit='nan' for rows of NaN")
            return moments.audio, moments.times
        begins = moments.times - (self.window_s / 2 if stream.center else 0)
        reached = np.searchsorted(damage, begins) < np.searchsorted(damage, begins + self.window_s)
        moments.audio[moments.silent | reached] = np.nan
        return moments.audio, moments.times

    def embed_image(self, images: Input) -> np.ndarray:
        """Embeddings of images: float32 (N, D), or (D,) of a single image.

        Args:
            images: an array of uint8, (height, width, 3) or (N, height, width, 3); or a path, or the bytes of a JPEG
                or PNG; or a list of these, of any sizes. The middle square of an image is resized to the model's size.

        Raises:
            EarshotError: a file cannot be read, an array has another shape or type, or the model embeds no images.
        """
        if not self.image_dimensions:
            raise self._lacks("images", "a network")
        many = _is_list(images) or getattr(images, "ndim", 0) == 4
        fitted = [self._fitted(image) for image in (images if many else [images])]
        if not fitted:
            return np.empty((0, self.image_dimensions), np.float32)
        parts = [self.embed_frames(np.stack(part)) for part in _parts(fitted)]
        return np.concatenate(parts) if many else parts[0][0]

    def embed_video(self, video: str | Path | bytes, hop: float = HOP_S, center: bool = True) -> VideoEmbeddings:
        """Embeddings of the windows of sound and of the images of a video, on one clock.

        Time 0 is when video and sound have begun; the image of a time is the one displayed then.

        Args:
            video: a path, or the bytes of a file; one of sound or of images alone will do too.
            hop, center: as for `embed_audio`.

        Raises:
            EarshotError: the file cannot be read, or holds nothing that the model embeds.
        """
        _check_hop(hop)
        stream = MomentStream(self, hop, center)
        self._add_file(stream, video, self.stream_options(hop))
        stream.finish()
        moments = stream.take()
        return VideoEmbeddings(moments.audio, moments.images, moments.times)

    def moments_of(
        self, pieces: Iterable[Piece], hop: float = HOP_S, center: bool = True, least: int = 1
    ) -> Iterator[MomentEmbeddings]:
        """The moments of one file while its pieces arrive, in parts of at least `least`, however long the file is."""
        stream = MomentStream(self, hop, center)
        for piece in pieces:
            stream.add(piece)
            if stream.waiting >= least:
                yield stream.take()
        if stream.has_audio and not stream.has_images and stream.samples < self.min_duration_s * stream.rate:
            seconds = stream.samples / stream.rate
            raise Refusal(
                "too-short", f"{seconds:.2f} s of sound, {self.name} requires {self.min_duration_s:g} s or more"
            )
        stream.finish()
        yield stream.take()

    def stream_options(self, hop: float, **options: Any) -> StreamOptions:
        """What to read of a file for this model."""
        return StreamOptions(bool(self.audio_dimensions), self.image_size, hop, **options)

    def save_pretrained(
        self, folder: str | Path, *, run: Path | None = None, license: str = "", **options: Any
    ) -> None:
        """Write weights, architecture, configuration and model card as a published folder, which `load` reads.

        Args:
            folder: to write.
            run: the folder with the params.yaml and metrics/ of the run, for the model card; by default the one in
                which the model lies.
            license: of the weights, an identifier such as `cc-by-4.0`.
            options: of huggingface_hub's ModelHubMixin.save_pretrained.

        Raises:
            EarshotError: the model is no network.
        """
        self._hub_model(run, license).save_pretrained(folder, **options)

    def push_to_hub(self, repo_id: str, *, run: Path | None = None, license: str = "", **options: Any) -> str:
        """Publish in a Hugging Face repository, as huggingface_hub's ModelHubMixin.push_to_hub does; its address.

        Other arguments and errors are those of `save_pretrained`.
        """
        return self._hub_model(run, license).push_to_hub(repo_id, **options)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> "Model":
        """A published model, from a folder or a Hugging Face repository; `options` are those of ModelHubMixin.

        Raises EarshotError as `load` does, and where this version computes other embeddings than were published.
        """
        published: Model = _hub().HubModel.from_pretrained(source, **options)
        return published

    def _hub_model(self, run: Path | None, license: str) -> Any:
        return _hub().HubModel(self, run, license)

    def pool(self, embeddings: np.ndarray) -> np.ndarray:
        """One vector of a file: the mean of its embeddings (T, D), without rows of NaN: float32 (D,)."""
        rows = embeddings[np.isfinite(embeddings).all(axis=1)]
        return rows.mean(axis=0, dtype=np.float64).astype(np.float32) if len(rows) else embeddings[0]

    def match(self, audio: Input, images: Input, sample_rate: int | None = None, hop: float = HOP_S) -> np.ndarray:
        """Log-odds that each window of a sound and each image belong together: float32 (T, N).

        Args:
            audio, sample_rate, hop: as for `embed_audio`, with the same windows, centered; a single sound.
            images: as for `embed_image`; N is 1 for a single image.

        Raises:
            EarshotError: the model compares no images with sounds, or as `embed_audio` and `embed_image` do.
        """
        raise self._lacks("pairs of images and sounds", "a network of the stage correspond, such as ave")

    def localize(self, image: Input, audio: Input, sample_rate: int | None = None, hop: float = HOP_S) -> np.ndarray:
        """Log-odds at each position of an image that a window of the sound comes from there: float32 (T, h, w).

        Args:
            image: a single one, as for `embed_image`.
            audio, sample_rate, hop: as for `match`.

        Raises:
            EarshotError: as `match`.
        """
        raise self._lacks("pairs of images and sounds", "a network of the stage correspond, such as avol")

    def _fitted(self, image: Input) -> np.ndarray:
        """A single image in the model's size: uint8 (size, size, 3)."""
        if isinstance(image, str | Path | bytes):
            (piece,) = self._pieces(image, StreamOptions(audio=False, image_size=self.image_size, hop_s=1.0), 1)
            if not piece.whole:
                raise EarshotError(f"{_name(image)}: is a video, expected a JPEG or PNG; embed it with embed_video")
            return self.fit_image(np.frombuffer(piece.whole, np.uint8).reshape(*piece.shape, 3))
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
            actual = f"{array.dtype} of shape {array.shape}"
            raise EarshotError(f"an image is {actual}; expected uint8 of shape (height, width, 3)")
        return self.fit_image(array)

    def _add_file(self, stream: MomentStream, file: str | Path | bytes, options: StreamOptions) -> None:
        for piece in self._pieces(file, options):
            stream.add(piece)

    def _pieces(self, file: str | Path | bytes, options: StreamOptions, most: int | None = None) -> Iterator[Piece]:
        """The pieces of a file; a refusal becomes an EarshotError."""
        with tempfile.NamedTemporaryFile(prefix="earshot-") as temporary:
            path = Path(file) if isinstance(file, str | Path) else Path(temporary.name)
            if isinstance(file, bytes):
                temporary.write(file)
                temporary.flush()
            try:
                for number, piece in enumerate(self._reader.read(real_path(path), options)):
                    yield piece
                    if number + 1 == most:
                        return
            except Refusal as refusal:
                actual = f"{_name(file)}: {refusal.reason}: {refusal.detail}"
                raise EarshotError(f"{actual}; docs/troubleshooting.md has the remedy of each reason") from None

    def _lacks(self, what: str, instead: str) -> EarshotError:
        return EarshotError(f"{self.name} embeds no {what}; use {instead}")


def _hub() -> Any:
    """The module that needs huggingface_hub; it loads models itself."""
    return importlib.import_module("earshot.embedding.hub")


def _samples(sound: Any, sample_rate: int | None) -> np.ndarray:
    """An array as float32 (samples, channels)."""
    samples = as_float32(np.asarray(sound))
    if not sample_rate or sample_rate <= 0:
        raise UnfitSound(f"sample_rate is {sample_rate}: an array requires its rate in Hz")
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise UnfitSound(f"sound has the shape {samples.shape}: expected (samples,) or (samples, channels)")
    return samples.reshape(len(samples), -1)


def _is_list(values: Any) -> bool:
    """Whether values are a list of inputs, not an array written as a list of numbers."""
    return isinstance(values, list | tuple) and not (values and isinstance(values[0], int | float))


def _check_hop(hop: float) -> None:
    if not hop > 0:
        raise ValueError(f"hop is {hop} s, expected a number above 0")


def _parts(images: Sequence[np.ndarray], size: int = 32) -> Iterator[Sequence[np.ndarray]]:
    for first in range(0, len(images), size):
        yield images[first : first + size]


def _name(file: str | Path | bytes) -> str:
    return f"{len(file):,} bytes" if isinstance(file, bytes) else printable(str(file))
