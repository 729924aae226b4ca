"""The clips of a split that are long enough for a network, with their frames or sequence and their sound."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from earshot.core.errors import EarshotError
from earshot.core.hashing import stable_hash
from earshot.core.rng import generator
from earshot.corpus.wrong_sound import derange_to_others, sounds_of_others
from earshot.scenes.arrow import bytes_in, lists_of_bytes_in
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.table import RowGroup, SceneTable

SOUND = ("duration", "sound")
COLUMNS = ("clip_id", "group", "duration")
COPIED = 0.5  # share of a row group's clips; fewer are copied, so that they do not keep the others in memory


@dataclass(frozen=True)
class SceneClip:
    """A clip to take pairs from: its frames with their times in seconds, its sequence, and its sound."""

    clip_id: str
    group: str
    duration: float
    sound: bytes | memoryview
    frames: Sequence[bytes | memoryview]
    times: Sequence[float]
    sequence: Sequence[bytes | memoryview] = ()
    sequence_rate: float = 0.0


@dataclass(frozen=True)
class InputSpec:
    """The input that a network requires; a correspondence network has attributes of the same names.

    Args:
        image_size: px.
        frames: images a pair: 1, or the length of a sequence.
        audio_samples, audio_rate, audio_channels: of the slice of sound.
    """

    image_size: int
    frames: int
    audio_samples: int
    audio_rate: int
    audio_channels: int

    @classmethod
    def by(cls, network: Any) -> "InputSpec":
        """The spec of a network."""
        return cls(**{name: getattr(network, name) for name in cls.__dataclass_fields__})

    @property
    def seconds(self) -> float:
        """Length of the sound in a pair."""
        return self.audio_samples / self.audio_rate

    def cut(self, clip: SceneClip, start: float) -> np.ndarray:
        """The slice of a clip's sound from `start` seconds on, as `sound_slice` returns it."""
        size = {"samples": self.audio_samples, "rate": self.audio_rate, "channels": self.audio_channels}
        return sound_slice(clip.sound, start, **size)


@dataclass(frozen=True)
class Sampling:
    """How pairs are sampled; the parameters of `correspond` of the same names.

    Args:
        positives: `overlapping`: any slice of sound around the frame's time (L3); `centered`: centered on it (AVE).
        negatives: `other-group`: the sound of another group; `shifted`: that of the same clip, at least `min_shift_s`
            away (multisensory); `both`: a share of each.
        grid_s: seconds; every slice begins at a multiple of it.
        min_shift_s: seconds.
        shifted_share: of `both`, the share of the mismatched sounds that are of the same clip.
    """

    positives: str
    negatives: str
    grid_s: float
    min_shift_s: float
    shifted_share: float = 0.0

    def shifted(self, clips: int, *key: int) -> np.ndarray:
        """Which mismatched sounds of a batch of this many clips are of the same clip, bool (clips,).

        Args:
            key: of the random draws of `both`, such as the seed and the number of the batch.
        """
        if self.negatives == "both":
            return generator("shifted pairs", *key).random(clips) < self.shifted_share
        return np.full(clips, self.negatives == "shifted")

    def start(self, clip: SceneClip, time: float, seconds: float, chance: float) -> float:
        """The start of a slice of `seconds` that matches the frame at `time`; `chance` in [0, 1) selects it."""
        if self.positives == "centered":
            return self.on_grid(clip, time - seconds / 2, seconds)
        last = int((clip.duration - seconds) / self.grid_s + 1e-6)
        first = max(int(np.ceil((time - seconds) / self.grid_s - 1e-6)), 0)
        number = first + int(chance * (max(min(int(time / self.grid_s), last) - first, 0) + 1))
        return min(max(number, 0), max(last, 0)) * self.grid_s

    def on_grid(self, clip: SceneClip, start: float, seconds: float) -> float:
        """The start on the grid that is nearest to `start`, of a slice of `seconds` that lies in the clip."""
        last = max(int((clip.duration - seconds) / self.grid_s + 1e-6), 0)
        return min(max(round(start / self.grid_s), 0), last) * self.grid_s

    def shifted_start(self, clip: SceneClip, start: float, seconds: float, chance: float) -> float:
        """Another start on the grid, at least a shift before or after `start`; `chance` in [0, 1) selects it.

        The clip must last `seconds` and twice the shift, so that there is one.
        """
        last, own = (round(self.on_grid(clip, place, seconds) / self.grid_s) for place in (clip.duration, start))
        before = max(own - self.shift_steps + 1, 0)
        after = max(last - own - self.shift_steps + 1, 0)
        number = int(chance * (before + after))
        return (number if number < before else own + self.shift_steps + number - before) * self.grid_s

    @property
    def shift_steps(self) -> int:
        """The least multiple of the grid that is a shift; 0 if no sound is shifted."""
        return int(np.ceil(self.shift / self.grid_s - 1e-6))

    @property
    def shift(self) -> float:
        """Seconds between the two slices of sound that a clip must contain."""
        return 0.0 if self.negatives == "other-group" else self.min_shift_s


@dataclass(frozen=True)
class ClipRowGroup:
    """The clips of a split in one row group of scenes.

    Args:
        group: the row group.
        rows: of the clips, (clips,).
        sources: hashes of the clips' groups, uint64 (clips,).
        sequence: whether to read sequences instead of single frames.
        wrong_sounds: for the wrong-sound control, the row group whose sounds these clips get, and of each clip the row
            there, (clips,).
    """

    group: RowGroup
    rows: np.ndarray
    sources: np.ndarray
    sequence: bool
    wrong_sounds: tuple[RowGroup, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def clip_ids(self) -> list[str]:
        """The ids of the clips, in order."""
        names = self.group.read(["clip_id"])["clip_id"].to_pylist()
        return [names[row] for row in self.rows]

    def read(self) -> list[SceneClip]:
        """The clips, in order."""
        images = ("sequence", "sequence_rate") if self.sequence else ("frames", "times")
        if self.wrong_sounds:
            rows, audio = _rows(self.group, self.rows, [*COLUMNS, *images]), _rows(*self.wrong_sounds, SOUND)
        else:
            rows = audio = _rows(self.group, self.rows, [*COLUMNS, "sound", *images])
        return [_clip(row, other) for row, other in zip(rows, audio, strict=True)]


def _rows(group: RowGroup, rows: np.ndarray, columns: Sequence[str]) -> list[dict[str, Any]]:
    """These rows of a row group; images and sounds are views of its memory, or copies if the rows are few."""
    table, places = group.read(columns), rows.tolist()
    few = len(places) < COPIED * len(table)
    values: dict[str, list[Any]] = {}
    for name in columns:
        column = table[name]
        if name == "sound":
            views = bytes_in(column, places)
            values[name] = [bytes(view) for view in views] if few else views
        elif name in ("frames", "sequence"):
            lists = lists_of_bytes_in(column, places)
            values[name] = [[bytes(view) for view in views] for views in lists] if few else lists
        else:
            values[name] = [column[place].as_py() for place in places]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _clip(row: dict[str, Any], audio: dict[str, Any]) -> SceneClip:
    """A clip with the sound of the row `audio`, which may be another clip's; its length is that of the shorter."""
    return SceneClip(
        clip_id=row["clip_id"],
        group=row["group"],
        duration=min(row["duration"], audio["duration"]),
        sound=audio["sound"],
        frames=row.get("frames", ()),
        times=row.get("times", ()),
        sequence=row.get("sequence", ()),
        sequence_rate=row.get("sequence_rate", 0.0),
    )


def clips_of(
    scenes: Path, spec: InputSpec, sampling: Sampling, *, split: str, wrong_sound: int | None = None
) -> list[ClipRowGroup]:
    """The clips of a split that are long enough for a pair, by row group.

    Args:
        scenes: folder of the table.
        split: `train`, `val` or `test`.
        wrong_sound: for the control, the seed of a fixed choice that gives every clip the sound of a clip of another
            group, see `_with_wrong_sounds`. None keeps the sounds.

    Raises:
        EarshotError: a shard cannot be read, or its sequences do not have the frame rate that the network requires.
    """
    row_groups = []
    columns = ["group", "duration", *(["sequence_rate"] if spec.frames > 1 else [])]
    for group, rows, table in SceneTable(scenes).split(split, columns):
        long_enough = _long_enough(group.shard, table, spec, sampling)
        sources = [stable_hash(name) for name in table["group"].to_pylist()]
        kept = rows[long_enough], np.array(sources, np.uint64)[long_enough]
        row_groups.append(ClipRowGroup(group, *kept, sequence=spec.frames > 1))
    return row_groups if wrong_sound is None else _with_wrong_sounds(row_groups, wrong_sound)


def _with_wrong_sounds(row_groups: Sequence[ClipRowGroup], seed: int) -> list[ClipRowGroup]:
    """The row groups, each with the sounds of another; none if all clips are of one group.

    The row groups form a random circle, and each gets the sounds of the next one that has a sound of another group for
    each of its clips. So the wrong sounds come from anywhere in a corpus, also in one that is sorted by class, and only
    one more row group is read. Each sound is used about once. A row group that finds none swaps its own sounds, which
    are then of two groups.
    """
    filled = [each for each in row_groups if len(each)]
    if len(set().union(*(each.sources.tolist() for each in filled))) < 2:
        return []
    circle = generator("wrong sound", seed).permutation(len(filled))
    controls = []
    for number, (own, place) in enumerate(zip(filled, np.argsort(circle).tolist(), strict=True)):
        drawn = generator("wrong sounds of a row group", seed, number)
        for other in (filled[following] for following in np.roll(circle, -place - 1).tolist()):  # itself last
            wrong = (
                derange_to_others(own.sources, drawn)
                if other is own
                else sounds_of_others(own.sources, other.sources, drawn)
            )
            if (wrong >= 0).all():
                break
        controls.append(replace(own, wrong_sounds=(other.group, other.rows[wrong])))
    return controls


def _long_enough(shard: Path, table: pa.Table, spec: InputSpec, sampling: Sampling) -> np.ndarray:
    """Which clips are long enough, bool (clips,)."""
    durations = table["duration"].to_numpy()
    if spec.frames == 1:
        # Of a frame in the middle, one of the sounds before and after it must be a shift away.
        return durations >= spec.seconds + 2 * sampling.shift_steps * sampling.grid_s
    rates, shift = table["sequence_rate"].to_numpy(), sampling.shift
    for rate in np.unique(rates).tolist():
        if abs(rate * spec.seconds - spec.frames) > 1:
            expected = f"{spec.frames} frames in {spec.seconds:.2f} s, so {spec.frames / spec.seconds:.2f} a second"
            actual = f"sequences of {rate:g} frames a second" if rate else "no sequences"
            raise EarshotError(f"{shard}: holds {actual}, the network expects {expected}; set extract.sequence_rate")
    needed = np.ceil((spec.frames + 1) + shift * rates)
    return (durations >= spec.seconds + shift) & (durations * rates >= needed)
