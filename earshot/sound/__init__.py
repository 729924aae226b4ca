"""Sound descriptors: the 502-d texture, MFCC and the spectrum."""

from earshot.sound.descriptors import DESCRIPTOR_SIZES, describe_windows
from earshot.sound.texture import TEXTURE_GROUPS, sound_textures
from earshot.sound.windows import UnfitSound, cut_windows

__all__ = ["DESCRIPTOR_SIZES", "TEXTURE_GROUPS", "UnfitSound", "cut_windows", "describe_windows", "sound_textures"]
