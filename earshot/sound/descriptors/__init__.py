"""Descriptors of windows of sound; each module defines a DESCRIPTOR (earshot/sound/description.py)."""
