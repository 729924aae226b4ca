"""A small benchmark in the layout of ESC-50: recordings of 5 s in five folds; all takes of a source share a fold."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from earshot.core.files import write_atomically
from earshot.world.media import write_recording
from earshot.world.scenes import render_sound
from earshot.world.sounds import RATE
from earshot.world.sources import KINDS

SECONDS = 5.0
FOLDS = 5
TAKES = 2  # recordings of one source
HEADER = ("filename", "fold", "target", "category", "esc10", "src_file", "take")


@dataclass(frozen=True)
class Recording:
    """A row of meta/esc50.csv; `source` numbers the sources of its kind."""

    fold: int
    target: int
    source: int
    take: int

    @property
    def source_file(self) -> int:
        """ESC-50 names a source by its number on Freesound: here a number that no other kind has."""
        return 100_000 + self.source * len(KINDS) + self.target

    @property
    def filename(self) -> str:
        """fold-source-take-target.wav"""
        return f"{self.fold}-{self.source_file}-{chr(ord('A') + self.take)}-{self.target}.wav"


def recordings(count: int) -> list[Recording]:
    """The rows of the table, `count` for each kind and fold."""
    rows = []
    for fold in range(1, FOLDS + 1):
        for target in range(len(KINDS)):
            for number in range(count):
                source, take = divmod(number, TAKES)
                rows.append(Recording(fold, target, source * FOLDS + fold - 1, take))
    return rows


def render_esc50(folder: Path, seed: int, rows: Iterable[Recording]) -> None:
    """Render these recordings."""
    for row in rows:
        sound = render_sound(seed, KINDS[row.target], source=row.source, take=row.take, seconds=SECONDS)
        write_recording(folder / "audio" / row.filename, sound, RATE)


def write_table(folder: Path, rows: Iterable[Recording]) -> None:
    """Write meta/esc50.csv. All ten kinds count as ESC-10."""
    with (
        write_atomically(folder / "meta" / "esc50.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for row in rows:
            writer.writerow(
                [row.filename, row.fold, row.target, KINDS[row.target], True, row.source_file, chr(ord("A") + row.take)]
            )
