"""Descriptors of sound, and the descriptor of a run with its options.

The stage describe writes the description of data/sounds to models/descriptor/descriptor.json, so that later stages
describe other sounds in the same way.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from earshot.core.errors import EarshotError
from earshot.core.files import write_atomically
from earshot.core.json_files import read_json
from earshot.core.params import Group, check_params
from earshot.core.registry import find, names
from earshot.sound.cochlea import BATCH, cochleagrams, loudness
from earshot.sound.texture import TextureOptions
from earshot.sound.windows import WINDOW_SECONDS, fitted_windows, is_silent

DESCRIPTORS = "earshot.sound.descriptors"
DESCRIPTION_FILE = "descriptor.json"


@dataclass(frozen=True)
class Batch:
    """Windows that are described together.

    Args:
        windows: of 3.75 s, float32 (moments, samples).
        sample_rate: Hz.
        envelopes: their cochleagrams, float32 (moments, 32, 1500); a descriptor may overwrite them.
        centers: time of each moment within its window, s, (moments,).
    """

    windows: np.ndarray
    sample_rate: int
    envelopes: np.ndarray
    centers: np.ndarray


@dataclass(frozen=True)
class Descriptor:
    """A way to summarize a window of sound as a vector.

    Args:
        dimensions: of the vector, or a function of the options that returns them.
        describe: function of a batch and the options that returns float32 (moments, dimensions).
        params: schema of its options, the group of its name in params.yaml. Without one `describe` gets the options of
            the texture, whose cochlea all descriptors share.
        files: function of the options that returns names of files in `options.folder` that `describe` reads. The stage
            describe copies them beside the description, and their folder is that of the description from then on.
        parts: groups of dimensions that are weighted separately in a distance; empty if all count alike.
        charts: function of a vector and the options that returns columns for the exhibit clusters; may be empty.
    """

    dimensions: int | Callable[[Any], int]
    describe: Callable[[Batch, Any], np.ndarray]
    params: type[Group] | None = None
    files: Callable[[Any], Sequence[str]] = lambda options: ()
    parts: Mapping[str, slice] = field(default_factory=dict)
    charts: Callable[[np.ndarray, Any], dict[str, np.ndarray]] = lambda vector, options: {}


@dataclass(frozen=True)
class Description:
    """The name of a descriptor, its options, and those of the cochlea."""

    name: str
    texture: TextureOptions
    own: Group | None = None

    @classmethod
    def of(cls, name: str, groups: Mapping[str, Any], source: Path | str = "params") -> "Description":
        """The description from the groups of options in params.yaml, checked.

        Raises EarshotError, which names `source`, for an unknown descriptor or option.
        """
        params = find(DESCRIPTORS, name, "DESCRIPTOR", what="descriptor").params
        texture = check_params(TextureOptions, groups.get("texture", {}), f"{source}: texture")
        own = params and check_params(params, groups.get(name, {}), f"{source}: {name}")
        return cls(name, texture, own)

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of that name."""
        return find(DESCRIPTORS, self.name, "DESCRIPTOR", what="descriptor")

    @property
    def options(self) -> Group:
        """The options that `describe` gets."""
        return self.own or self.texture

    @property
    def dimensions(self) -> int:
        """The length of a vector. Raises EarshotError if the descriptor's files do not give one."""
        dimensions = self.descriptor.dimensions
        return dimensions if isinstance(dimensions, int) else dimensions(self.options)

    @property
    def files(self) -> list[Path]:
        """The files that the descriptor reads."""
        return [Path(getattr(self.options, "folder", "")) / name for name in self.descriptor.files(self.options)]

    def read_from(self, folder: Path) -> "Description":
        """The same description, whose files are in this folder."""
        return (
            replace(self, own=self.own and self.own.model_copy(update={"folder": str(folder)})) if self.files else self
        )

    def describe(
        self, windows: np.ndarray, sample_rate: int, centers: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Describe windows (moments, samples) of 1.5 to 3.75 s: float32 (moments, dimensions), and which are silent.

        Silence, bool (moments,), depends on the level and the cochleagram but not on the descriptor, so that all
        descriptors share the same moments.

        Args:
            windows: in [-1, 1].
            sample_rate: Hz.
            centers: time of each moment within its window, s; by default the middle.

        Raises UnfitSound for windows that are too short, too long, not mono or not finite.
        """
        descriptor = self.descriptor
        if centers is None:
            centers = np.full(len(windows), min(windows.shape[1] / sample_rate, WINDOW_SECONDS) / 2)
        windows = fitted_windows(windows, sample_rate)
        described = np.empty((len(windows), self.dimensions), np.float32)
        levels = np.empty(len(windows), np.float32)
        for first in range(0, len(windows), BATCH):
            part = slice(first, first + BATCH)
            envelopes = cochleagrams(windows[part], **self.texture.cochlea)
            levels[part] = loudness(envelopes)
            batch = Batch(windows[part], sample_rate, envelopes, centers[part])
            described[part] = descriptor.describe(batch, self.options)
        return described, is_silent(windows, levels)

    def cochleagrams(self, windows: np.ndarray, sample_rate: int) -> np.ndarray:
        """The cochleagrams of windows as for `describe`: float32 (moments, 32, 1500)."""
        return cochleagrams(fitted_windows(windows, sample_rate), **self.texture.cochlea)

    def charts(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Columns for charts of a vector (dimensions,); empty if the descriptor has none."""
        return self.descriptor.charts(vector, self.options)

    def save(self, folder: Path, digests: Sequence[str]) -> None:
        """Write descriptor.json and the descriptor's files; `digests` are those of the shards of data/sounds."""
        for file in self.files:
            with write_atomically(folder / file.name) as temporary_path:
                shutil.copyfile(file, temporary_path)
        own = self.read_from(Path()).own  # the folder that holds the description, wherever it lies
        parts = self.descriptor.parts or {self.name: slice(0, self.dimensions)}
        options = {"texture": self.texture.model_dump()} | ({self.name: own.model_dump()} if own else {})
        values = {
            "descriptor": self.name,
            "dimensions": self.dimensions,
            "parts": {name: [part.start, part.stop] for name, part in parts.items()},
            "options": options,
            "digest": hashlib.sha256("".join(digests).encode()).hexdigest(),
        }
        with write_atomically(folder / DESCRIPTION_FILE) as temporary_path:
            temporary_path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_description(folder: Path) -> Description:
    """The description that `Description.save` wrote.

    Raises EarshotError if its file is missing or damaged, or names an unknown descriptor or option.
    """
    file = folder / DESCRIPTION_FILE
    values = read_json(file, "describe")
    if values.get("descriptor") not in names(DESCRIPTORS) or not isinstance(values.get("options"), dict):
        raise EarshotError(f"{file}: names no descriptor with its options; run the stage describe again")
    return Description.of(values["descriptor"], values["options"], file).read_from(folder)
