"""The sample world: ten kinds of scene whose picture and sound share a hidden cause, rendered with no network.

Shape and texture tell the kind to the eye, never colour or brightness; statistics over time and frequency tell it to
the ear, never the level.
"""

from earshot.world.scenes import Clip, VisibleObject, render_clip, render_image, render_sound
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS

__all__ = ["KINDS", "RATE", "Clip", "VisibleObject", "render_clip", "render_image", "render_sound"]
