"""Parameters of the stage report, which shows all of them."""

from typing import Any

from earshot.core.params import Part, Seed

Shown = dict[str, Any]  # checked by the stages that use them


class Params(Part):
    """What the stage report reads: everything."""

    seed: Seed
    descriptor: str
    clusters: int
    sample: Shown
    corpus: Shown
    download: Shown
    extract: Shown
    texture: Shown
    label: Shown
    pretrain: Shown
    correspond: Shown
    evaluate: Shown
    explain: Shown
