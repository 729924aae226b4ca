"""A small benchmark in the layout of ESC-50: recordings of five seconds in five folds, takes of one source in one."""

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
        """ESC-50 names a source by its number on Freesound: here one that no other kind has."""
        return 100_000 + self.source * len(KINDS) + self.target

    @property
    def filename(self) -> str:
        """fold-source-take-target.wav"""
        return f"{self.fold}-{self.source_file}-{chr(ord('A') + self.take)}-{self.target}.wav"


def recordings(sounds: int) -> list[Recording]:
    """The rows of the table, `sounds` a kind and fold."""
    listed = []
    for fold in range(1, FOLDS + 1):
        for target in range(len(KINDS)):
            for sound in range(sounds):
                source, take = divmod(sound, TAKES)
                listed.append(Recording(fold, target, source * FOLDS + fold - 1, take))
    return listed


def render_esc50(folder: Path, seed: int, listed: Iterable[Recording]) -> None:
    """Renders these recordings."""
    for row in listed:
        sound = render_sound(seed, KINDS[row.target], source=row.source, take=row.take, seconds=SECONDS)
        write_recording(folder / "audio" / row.filename, sound, RATE)


def write_table(folder: Path, listed: Iterable[Recording]) -> None:
    """meta/esc50.csv. All ten kinds count as ESC-10."""
    with (
        write_atomically(folder / "meta" / "esc50.csv") as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEADER)
        for row in listed:
            rows.writerow(
                [row.filename, row.fold, row.target, KINDS[row.target], True, row.source_file, chr(ord("A") + row.take)]
            )
