"""The encoders of a folder: the trained network and its controls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from earshot.networks.files import load_encoder

# The prefix of the metrics of each encoder that a folder may hold.
PREFIXES = {"encoder": "", "wrong_sound": "wrong_sound_", "random": "random_"}


def load_encoders(folder: Path, load: Callable[[Path, str], Any] = load_encoder) -> dict[str, Any]:
    """The trained network of a folder, the same network with random weights, and the control if it was trained.

    The keys are the prefixes of their metrics. `load` is a loader of earshot/networks/files. Raises EarshotError as
    `load` does.
    """
    names = [name for name in PREFIXES if name != "wrong_sound" or (folder / "wrong_sound.safetensors").exists()]
    return {PREFIXES[name]: load(folder, name) for name in names}
