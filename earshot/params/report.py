"""Parameters of the stage report, which displays all of them."""

from typing import Any

from earshot.core.params import Part, Seed

Unchecked = dict[str, Any]  # the stages that use them check them


class ReportParams(Part):
    """What the stage report reads: everything."""

    seed: Seed
    descriptor: str
    clusters: int
    sample: Unchecked
    corpus: Unchecked
    download: Unchecked
    extract: Unchecked
    texture: Unchecked
    encoder: Unchecked
    label: Unchecked
    pretrain: Unchecked
    correspond: Unchecked
    evaluate: Unchecked
    explain: Unchecked
