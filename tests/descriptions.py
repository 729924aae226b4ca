"""Folders that say how sound is described, as the stage describe writes models/descriptor."""

from pathlib import Path

from earshot.sound.description import Description

OPTIONS = {"order": "compress-then-resample", "ends": "lowpass+highpass"}
OPTIONS |= {"modulation_norm": "variance", "exactness": "earshot"}


def description_of(descriptor: str) -> Description:
    """A descriptor with the usual options of the cochlea."""
    return Description.of(descriptor, {"texture": OPTIONS})


def described_as(descriptor: str, folder: Path) -> Path:
    """A folder of the description by this descriptor, of clips whose list is named."""
    folder.mkdir()
    description_of(descriptor).save(folder, [])
    (folder / "clips.json").write_text('{"clips_hash": "0123456789abcdef"}')
    return folder
