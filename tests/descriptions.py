"""How sound is described in tests: the options of params.yaml."""

from earshot.sound.description import Description

OPTIONS = {
    "order": "compress-then-resample",
    "ends": "lowpass+highpass",
    "modulation_norm": "variance",
    "exactness": "earshot",
}


def description(name: str, **options: str) -> Description:
    """The description by this descriptor, with other options of the texture where they are given."""
    return Description.of(name, {"texture": OPTIONS | options})
