"""Sound descriptors: the 502-d texture, MFCC and the spectrum."""

from earshot.sound.texture import TEXTURE_GROUPS, sound_textures

__all__ = ["TEXTURE_GROUPS", "sound_textures"]
