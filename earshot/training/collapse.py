"""Whether embeddings have collapsed: all of them point the same way, and distinguish nothing."""

from torch import Tensor
from torch.nn import functional

COLLAPSED = 1e-3  # spread below which embeddings count as collapsed


def spread(embeddings: Tensor) -> float:
    """1 minus the length of the mean of the directions of embeddings (n, units): 0 if they all are one, 1 if even."""
    return 1 - float(functional.normalize(embeddings.float(), dim=1).mean(0).norm().detach())


def collapse(spreads: dict[str, float], steps: int) -> dict[str, str]:
    """The alarm `collapsed` in words, if the spread of a modality is too small; empty if none is."""
    few = [f"{modality}, spread {value:.1e}" for modality, value in spreads.items() if value < COLLAPSED]
    actual = f"the embeddings of one modality have collapsed after {steps} steps ({'; '.join(few)})"
    return {"collapsed": f"{actual}, expected {COLLAPSED:g} or more"} if few else {}
