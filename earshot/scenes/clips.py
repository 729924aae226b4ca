"""The clips of a split as a network takes them: long enough, with their frames or sequence, and their sound."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from earshot.core.errors import EarshotError
from earshot.core.rng import generator
from earshot.corpus.wrong_sound import derange_to_others
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.table import RowGroup, SceneTable

COLUMNS = ("clip_id", "group", "duration", "sound", "sound_rate")


@dataclass(frozen=True)
class Clip:
    """What pairs are made of: a clip's frames with their times in seconds, its sequence, and its sound."""

    clip_id: str
    group: str
    duration: float
    sound: bytes
    frames: Sequence[bytes]
    times: Sequence[float]
    sequence: Sequence[bytes] = ()
    sequence_rate: float = 0.0


@dataclass(frozen=True)
class InputSpec:
    """What a network takes of a clip; the attributes of the same names of a correspondence network.

    Args:
        image_size: px.
        frames: pictures a pair: 1, or the length of a sequence.
        sound_samples, sound_rate, sound_channels: of the slice of sound.
    """

    image_size: int
    frames: int
    audio_samples: int
    audio_rate: int
    audio_channels: int

    @classmethod
    def by(cls, network: Any) -> "InputSpec":
        return cls(**{name: getattr(network, name) for name in cls.__dataclass_fields__})

    @property
    def seconds(self) -> float:
        """Of sound in a pair."""
        return self.audio_samples / self.audio_rate

    def cut(self, sound: bytes, start: float) -> np.ndarray:
        """The slice of a clip's sound that begins at so many seconds, as `sound_slice` has it."""
        how = {"samples": self.audio_samples, "rate": self.audio_rate, "channels": self.audio_channels}
        return sound_slice(sound, start, **how)


@dataclass(frozen=True)
class Sampling:
    """Which pairs are made; the values of `correspond` of the same names.

    Args:
        positives: `overlapping`, any slice of sound that the frame's time lies in (L3), or `centred` on it (AVE).
        negatives: `other-group`, or `shifted`: the sound of the same clip, `shift` seconds away or more (multisensory).
        grid_s: seconds; every slice begins at a multiple of it.
        min_shift_s: seconds.
    """

    positives: str
    negatives: str
    grid_s: float
    min_shift_s: float

    def start(self, clip: Clip, time: float, seconds: float, chance: float) -> float:
        """Where a slice of `seconds` begins that belongs to the frame at `time`; `chance` in [0, 1) picks it."""
        last = int((clip.duration - seconds) / self.grid_s + 1e-6)
        if self.positives == "centered":
            number = round((time - seconds / 2) / self.grid_s)
        else:
            first = max(int(np.ceil((time - seconds) / self.grid_s - 1e-6)), 0)
            number = first + int(chance * (max(min(int(time / self.grid_s), last) - first, 0) + 1))
        return min(max(number, 0), max(last, 0)) * self.grid_s

    @property
    def apart(self) -> float:
        """Seconds between the two slices of sound that a clip must have room for."""
        return self.min_shift_s if self.negatives == "shifted" else 0.0


@dataclass(frozen=True)
class ClipRowGroup:
    """The clips of one row group of scenes that a split uses.

    Args:
        group: where they are.
        rows: of the clips, (clips,).
        sequence: whether sequences are wanted, and not single frames.
        dealt: for the wrong-sound control, the row of the clip whose sound each has, (clips,).
    """

    group: RowGroup
    rows: np.ndarray
    sequence: bool
    deranged: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def clip_ids(self) -> list[str]:
        """The names of the clips, in order."""
        names = self.group.read(["clip_id"])["clip_id"].to_pylist()
        return [names[row] for row in self.rows]

    def read(self) -> list[Clip]:
        """The clips, in order."""
        images = ("sequence", "sequence_rate") if self.sequence else ("frames", "times")
        table = self.group.read([*COLUMNS, *images])
        rows = table.take(pa.array(self.rows)).to_pylist()
        heard = rows if self.deranged is None else table.take(pa.array(self.deranged)).to_pylist()
        return [_clip(row, other) for row, other in zip(rows, heard, strict=True)]


def _clip(row: dict[str, Any], heard: dict[str, Any]) -> Clip:
    """A clip with the sound of a row that may be another's; it lasts as long as there are both."""
    return Clip(
        clip_id=row["clip_id"],
        group=row["group"],
        duration=min(row["duration"], heard["duration"]),
        sound=heard["sound"],
        frames=row.get("frames", ()),
        times=row.get("times", ()),
        sequence=row.get("sequence", ()),
        sequence_rate=row.get("sequence_rate", 0.0),
    )


def clips_of(
    scenes: Path, wanted: InputSpec, sampling: Sampling, *, split: str, wrong_sound: int | None = None
) -> list[ClipRowGroup]:
    """Where the clips of a split are that last long enough for a pair.

    Args:
        scenes: folder of the table.
        split: `train`, `val` or `test`.
        wrong_sound: for the control, the seed by which every clip gets the sound of a clip of another group of its row
            group, for good; clips of row groups of one group alone are left out. None leaves sounds where they are.

    Raises:
        EarshotError: a shard cannot be read, or its sequences are not those that the network wants.
    """
    found = []
    columns = ["group", "duration", *(["sequence_rate"] if wanted.frames > 1 else [])]
    for group, rows, table in SceneTable(scenes).split(split, columns):
        lasting = _lasts(group.shard, table, wanted, sampling.apart)
        rows, deranged = rows[lasting], None
        if wrong_sound is not None and len(rows):
            drawn = generator("wrong sound", wrong_sound, int(group.shard.stem), group.number)
            others = derange_to_others(np.array(table["group"])[lasting], drawn)
            rows, deranged = rows[others >= 0], rows[others[others >= 0]]
        found.append(ClipRowGroup(group, rows, wanted.frames > 1, deranged))
    return found


def _lasts(shard: Path, table: pa.Table, wanted: InputSpec, shift: float) -> np.ndarray:
    """Which of some clips are long enough, bool (clips,)."""
    durations = table["duration"].to_numpy()
    if wanted.frames == 1:
        return durations >= wanted.seconds
    rates = table["sequence_rate"].to_numpy()
    for rate in np.unique(rates).tolist():
        if abs(rate * wanted.seconds - wanted.frames) > 1:
            asked = (
                f"{wanted.frames} frames in {wanted.seconds:.2f} s, so {wanted.frames / wanted.seconds:.2f} a second"
            )
            found = f"sequences of {rate:g} frames a second" if rate else "no sequences"
            raise EarshotError(f"{shard}: holds {found}, the network wants {asked}; set extract.sequence_rate")
    needed = np.ceil((wanted.frames + 1) + shift * rates)
    return (durations >= wanted.seconds + shift) & (durations * rates >= needed)
