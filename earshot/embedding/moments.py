"""The embeddings of one file or sound, computed while it arrives, so that memory does not grow with its length."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import soxr

from earshot.embedding.windows import Windows
from earshot.media.streaming import Piece
from earshot.sound.windows import samples_of

AT_ONCE = 32  # windows or images that a network embeds together
# From windows, float32 (windows, samples, channels), their rate, and the samples from one to the next (0: it varies)
# to rows of any shape and which are silent.
EmbedWindows = Callable[[np.ndarray, int, int], tuple[np.ndarray, np.ndarray]]
FULL_SCALE = np.float32(32768)


class Embeds(Protocol):
    """What a stream of moments uses of a model."""

    window_s: float
    pads_with_silence: bool
    audio_rate: int
    image_size: int

    def embed_windows(self, windows: np.ndarray, rate: int, hop: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Rows of windows of sound, and which are silent."""

    def embed_frames(self, images: np.ndarray) -> np.ndarray:
        """Rows of images."""

    def fit_image(self, image: np.ndarray) -> np.ndarray:
        """An image of the model's size."""


@dataclass(frozen=True)
class MomentEmbeddings:
    """Embeddings of consecutive times.

    Args:
        times: seconds, float64 (moments,).
        audio: of the windows of sound, float32 (moments, dimensions); None without sound.
        images: of the images displayed then, float32 (moments, dimensions); None without images.
        silent: whether a window is silent, bool (moments,).
    """

    times: np.ndarray
    audio: np.ndarray | None
    images: np.ndarray | None
    silent: np.ndarray


class MomentStream:
    """Turns the parts of one file into moments.

    Args:
        model: embeds the windows and images.
        hop_s: seconds between moments.
        center: whether a window is centered on its moment, or begins there.
        embed_windows: instead of the model's method of that name.

    Attributes:
        samples, rate: of the sound that has arrived, at its own rate in Hz.
        has_audio, has_images: whether the file has sound and images that the model embeds.
    """

    def __init__(self, model: Embeds, hop_s: float, center: bool, embed_windows: EmbedWindows | None = None) -> None:
        self.model, self.hop_s, self.center = model, hop_s, center
        self._embed_windows = embed_windows or model.embed_windows
        self.samples = self.rate = self._taken = 0
        self.has_audio = self.has_images = False
        self._windows: Windows | None = None
        self._resampler: Any = None
        self._cut: list[np.ndarray] = []  # windows that wait for others
        self._displayed: list[np.ndarray] = []  # images that wait, and at how many moments each is displayed
        self._counts: list[int] = []
        self._audio_rows: deque[tuple[np.ndarray, bool]] = deque()
        self._image_rows: deque[np.ndarray] = deque()
        self._last_image: np.ndarray | None = None

    def add(self, piece: Piece) -> None:
        """Embed what a piece of a file completes."""
        self.has_audio |= piece.has_audio
        self.has_images |= piece.has_images
        if piece.rate:
            self.add_sound(piece.samples() / FULL_SCALE, piece.rate)
        if piece.counts:
            self.add_images(np.frombuffer(piece.images, np.uint8), piece.counts)
        if piece.whole:
            image = np.frombuffer(piece.whole, np.uint8).reshape(*piece.shape, 3)
            self.add_images(self.model.fit_image(image), [1])

    def add_sound(self, sound: np.ndarray, rate: int) -> None:
        """Embed the windows that a part of the sound, float32 (samples, channels), completes."""
        own = self.model.audio_rate or rate
        if self._windows is None:
            self.has_audio, self.rate, self._channels = True, rate, sound.shape[1]
            length = samples_of(self.model.window_s, own)
            self._windows = Windows(
                length, own, hop_s=self.hop_s, center=self.center, padded=self.model.pads_with_silence
            )
            if own != rate:
                self._resampler = soxr.ResampleStream(rate, own, sound.shape[1], dtype="float32", quality="HQ")
        self.samples += len(sound)
        self._cut += self._windows.add(self._resampler.resample_chunk(sound) if self._resampler else sound)
        self._embed(AT_ONCE)

    def add_images(self, images: np.ndarray, counts: list[int]) -> None:
        """Embed images of the model's size, uint8, of which each is displayed at that many moments."""
        size = self.model.image_size
        self.has_images = True
        self._displayed += list(images.reshape(-1, size, size, 3))
        self._counts += counts
        self._embed(AT_ONCE)

    def finish(self) -> None:
        """Embed the rest; the last image stands as long as the sound lasts, and no longer."""
        if self._windows:
            if self._resampler:
                rest = np.empty((0, self._channels), np.float32)
                self._cut += self._windows.add(self._resampler.resample_chunk(rest, last=True))
            self._cut += self._windows.finish()
        self._embed(1)
        if self.has_audio and self._last_image is not None:
            lacking = len(self._audio_rows) - len(self._image_rows)
            self._image_rows.extend([self._last_image] * lacking)

    @property
    def waiting(self) -> int:
        """The number of complete moments that `take` would return."""
        lengths = [len(self._audio_rows)] * self.has_audio + [len(self._image_rows)] * self.has_images
        return min(lengths, default=0)

    def take(self) -> MomentEmbeddings:
        """The complete moments since the last call."""
        number = self.waiting
        times = (self._taken + np.arange(number)) * self.hop_s
        self._taken += number
        windows = [self._audio_rows.popleft() for _ in range(number)] if self.has_audio else []
        images = [self._image_rows.popleft() for _ in range(number)] if self.has_images else []
        return MomentEmbeddings(
            times,
            np.stack([row for row, _ in windows]) if windows else None,
            np.stack(images) if images else None,
            np.array([silent for _, silent in windows] or [False] * number, bool),
        )

    def _embed(self, least: int) -> None:
        """Embed what waits, while there are at least so many windows or images."""
        while len(self._cut) >= least:
            batch, self._cut = self._cut[:AT_ONCE], self._cut[AT_ONCE:]
            assert self._windows
            rows = self._embed_windows(np.stack(batch), self._windows.rate, self._windows.hop)
            self._audio_rows.extend(zip(*rows, strict=True))
        while len(self._displayed) >= least:
            batch, self._displayed = self._displayed[:AT_ONCE], self._displayed[AT_ONCE:]
            counts, self._counts = self._counts[:AT_ONCE], self._counts[AT_ONCE:]
            for row, count in zip(self.model.embed_frames(np.stack(batch)), counts, strict=True):
                self._image_rows.extend([row] * count)
                self._last_image = row
