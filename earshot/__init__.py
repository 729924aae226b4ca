"""Earshot learns to see from what can be heard.

`earshot.textures(samples, sample_rate)` gives the sound textures of a recording, float32 (windows, 502).
`earshot.load("models/correspond")` gives a trained network that embeds sounds, images and videos.
"""

import importlib
import os
from typing import Any

# Read by torch as it is imported: its tensors lie in huge pages. On a virtual machine with pages of 4 KB, copying large
# tensors was 15 times slower, and training three times.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__all__ = ["load", "textures"]
# Imported when they are first used: this import stays light.
_PUBLIC = {"load": "earshot.embedding.loading", "textures": "earshot.sound.recording"}


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
