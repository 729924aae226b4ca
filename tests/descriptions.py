"""How sound is described in tests, with the options of params.yaml, and folders that say so like models/descriptor."""

from pathlib import Path

from earshot.sound.description import Description

OPTIONS = {
    "order": "compress-then-resample",
    "outer_channels": "lowpass+highpass",
    "modulation_norm": "variance",
    "exactness": "earshot",
}


def description(name: str, **options: str) -> Description:
    """The description by this descriptor, with other options of the texture where they are given."""
    return Description.of(name, {"texture": OPTIONS | options})


def described_as(descriptor: str, folder: Path) -> Path:
    """A folder of the description by this descriptor, of clips whose list is named."""
    folder.mkdir()
    description(descriptor).save(folder, [])
    (folder / "clips.json").write_text('{"clips_hash": "0123456789abcdef"}')
    return folder
