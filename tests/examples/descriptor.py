"""Loudness of the channels: as earshot/sound/descriptors/loudness.py it is `descriptor: loudness`."""

from earshot.sound.cochlea import CHANNELS
from earshot.sound.description import Descriptor

# Envelopes are (moments, channels, times).
DESCRIPTOR = Descriptor(dimensions=CHANNELS, describe=lambda batch, options: batch.envelopes.mean(-1))
