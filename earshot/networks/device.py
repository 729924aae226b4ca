"""Where networks run, and in which precision."""

from typing import TypeVar

import torch
from torch import nn

from earshot.core.errors import EarshotError
from earshot.pipeline.settings import settings

N = TypeVar("N", bound=nn.Module)


def get_device() -> torch.device:
    """The device of EARSHOT_DEVICE; `auto` takes a GPU where there is one.

    Raises:
        EarshotError: a GPU is asked for that is not there.
    """
    name = settings().device
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EarshotError("EARSHOT_DEVICE is cuda, but torch finds no such device; wanted auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def on_device(network: N) -> N:
    """The network itself, moved to the device of `chosen_device` in the memory layout that is fastest there."""
    # Torch's types leave out the memory layout.
    return network.to(get_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


def used_precision(precision: str, device: torch.device) -> str:
    """What `auto` is on this device: `bf16` where it computes in bfloat16 fast, else `float32`; others stay.

    A CPU without AVX-512 or AMX instructions for bfloat16 is ten times slower in it than in float32.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bf16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes in `bf16`, `float32`, or the one of them that `auto` is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=used_precision(precision, device) == "bf16")
