"""A batch of pairs of images and sounds."""

from typing import NamedTuple

from torch import Tensor


class Pairs(NamedTuple):
    """Images, sounds and the pairs of them; the first four fields are inputs of a network.

    Args:
        images: one per clip, uint8 (clips, 3, s, s) or (clips, frames, 3, s, s).
        sounds: their matching sounds, in order, and any further ones; float32 (sounds, samples) or (sounds, 2,
            samples).
        image_index, audio_index: the index of each pair's image and sound, int64 (pairs,).
        is_match: 1 for matching pairs, which come first, 0 for the others; float32 (pairs,).
        groups: a number for the group of each sound's clip, int64 (sounds,); the first ones are those of the images.
    """

    images: Tensor
    sounds: Tensor
    image_index: Tensor
    audio_index: Tensor
    is_match: Tensor
    groups: Tensor

    def in_windows(self, count: int) -> "Pairs":
        """Each sound as so many consecutive ones of equal length: all first ones, then all second ones, and so on."""
        sounds = self.sounds.unflatten(-1, (count, -1)).movedim(-2, 0).flatten(0, 1)
        return self._replace(sounds=sounds, groups=self.groups.repeat(count))
