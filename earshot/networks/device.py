"""Where networks run."""

import torch

from earshot.core.errors import EarshotError
from earshot.pipeline.settings import settings


def chosen_device() -> torch.device:
    """The device of EARSHOT_DEVICE; `auto` takes a GPU where there is one.

    Raises:
        EarshotError: a GPU is asked for that is not there.
    """
    name = settings().device
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EarshotError("EARSHOT_DEVICE is cuda, but torch finds no such device; wanted auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")
