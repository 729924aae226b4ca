"""Descriptions for tests, with the options of params.yaml, and folders of them like models/descriptor."""

from pathlib import Path

from earshot.sound.description import Description

OPTIONS = {
    "order": "compress-then-resample",
    "outer_channels": "lowpass+highpass",
    "modulation_norm": "variance",
    "exactness": "earshot",
}


def description(name: str, **options: str) -> Description:
    """The description of this descriptor, with the given options of the texture changed."""
    return Description.of(name, {"texture": OPTIONS | options})


def described_as(descriptor: str, folder: Path) -> Path:
    """A folder with the description of this descriptor and the hash of a list of clips."""
    folder.mkdir()
    description(descriptor).save(folder, [])
    (folder / "clips.json").write_text('{"clips_hash": "0123456789abcdef"}')
    return folder
