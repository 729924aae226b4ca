"""The sample world: ten kinds of scene whose images and sound share a hidden cause, rendered without a network.

Shape and texture reveal the kind in an image, never color or brightness. Statistics over time and frequency reveal it
in the sound, never the level.
"""

from earshot.world.scenes import RenderedClip, VisibleObject, render_clip, render_image, render_sound
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS

__all__ = ["KINDS", "RATE", "RenderedClip", "VisibleObject", "render_clip", "render_image", "render_sound"]
