"""Descriptors of windows of sound, a module each that defines DESCRIPTOR (earshot/sound/description.py)."""
