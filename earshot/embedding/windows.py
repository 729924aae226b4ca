"""The windows of a sound of any length, one every hop, cut while the sound arrives."""

import math

import numpy as np

from earshot.sound.windows import samples_of

ROUNDING = 1e-9  # of a number of hops


class Windows:
    """Cuts windows of `length` samples from a sound that arrives in parts.

    Window k belongs to the time k * `hop_s`: it is centered on it, or begins there. As in OpenL3 the last window is the
    first that reaches the end of the sound; there is one at least. No rounding accumulates over hours.

    Args:
        length: samples of a window.
        rate: Hz.
        hop_s: seconds between windows.
        center: whether windows are centered on their times.
        padded: whether silence surrounds the sound. Otherwise windows that would exceed the sound are shifted into
            it, and a sound shorter than a window is its only window.
    """

    def __init__(self, length: int, rate: int, *, hop_s: float, center: bool, padded: bool) -> None:
        self.length, self.rate, self.hop_s, self.padded = length, rate, hop_s, padded
        self.before = length // 2 if center else 0
        self.total = self.count = 0  # samples that have arrived, windows that were cut
        self._kept: np.ndarray | None = None  # (samples, channels), of which the first is at the place `_begin`
        self._begin = 0

    @property
    def hop(self) -> int:
        """Samples from one window to the next; 0 if that varies."""
        samples = self.hop_s * self.rate
        return round(samples) if self.padded and abs(samples - round(samples)) < ROUNDING else 0

    def add(self, sound: np.ndarray) -> list[np.ndarray]:
        """The windows, (length, channels), that a part of the sound, (samples, channels), completes."""
        if self._kept is None:
            self._begin = -self.before if self.padded else 0
            self._kept = np.zeros((-self._begin, sound.shape[1]), sound.dtype)
        self.total += len(sound)
        self._kept = np.concatenate([self._kept, sound])
        windows = []
        while self._start() + self.length <= self.total:
            windows.append(self._window())
        unused = min(self._start(), self.total - self.length) - self._begin
        if unused > 0:
            self._kept, self._begin = self._kept[unused:], self._begin + unused
        return windows

    def finish(self) -> list[np.ndarray]:
        """The windows at the end of the sound; none without any sound."""
        if self._kept is None or not self.total:
            return []
        beyond = (self.total + self.before - self.length) / (self.hop_s * self.rate)
        number = 1 + max(math.ceil(beyond - ROUNDING), 0)
        if self.padded:
            self._kept = np.concatenate([self._kept, np.zeros((self.length, self._kept.shape[1]), self._kept.dtype)])
        return [self._window() for _ in range(self.count, number)]

    def _start(self) -> int:
        """The place of the first sample of the next window."""
        start = samples_of(self.count * self.hop_s, self.rate) - self.before
        return start if self.padded else max(start, 0)

    def _window(self) -> np.ndarray:
        assert self._kept is not None
        start = self._start() - self._begin
        if not self.padded:
            start = max(min(start, len(self._kept) - self.length), 0)
        self.count += 1
        return self._kept[start : start + self.length]
