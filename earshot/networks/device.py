"""The device on which networks run, and the precision."""

import ctypes
import functools
from typing import TypeVar

import torch
from torch import nn

from earshot.core.errors import EarshotError
from earshot.pipeline.settings import settings

N = TypeVar("N", bound=nn.Module)

# Options of glibc's mallopt, and bytes: blocks up to the first size come from the heap (its largest value), and the
# heap shrinks only if it has more free bytes than the second.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 32 << 20), (-1, 1 << 30)


def get_device() -> torch.device:
    """The device of EARSHOT_DEVICE; `auto` takes a GPU if there is one.

    Raises:
        EarshotError: EARSHOT_DEVICE is cuda, but there is no GPU.
    """
    name = settings().device
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise EarshotError("EARSHOT_DEVICE is cuda, but torch finds no such device; set auto or cpu")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def on_device(network: N) -> N:
    """The network itself, moved to the device of `get_device` in the memory layout that is fastest there."""
    _keep_freed_memory()
    # Torch's types leave out the memory layout.
    return network.to(get_device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


@functools.cache
def _keep_freed_memory() -> None:
    """Let glibc give the same memory to the next step, instead of returning it to the system after each.

    New memory costs a page fault for every 4 kB, which took a tenth of the time of training correspondence networks.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # not in other C libraries
        for option, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            mallopt(option, value)


def seed_generators(seed: int) -> None:
    """Seed torch's generators of random numbers, of the CPU and of all GPUs.

    torch.manual_seed does the same, but imports torch's compiler at its first call, which takes seconds.
    """
    torch.default_generator.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def used_precision(precision: str, device: torch.device) -> str:
    """The precision that `auto` stands for: `bf16` if the device is fast in bfloat16, else `float32`.

    Other values are returned unchanged. Of CPUs only those with AMX count as fast in bfloat16. On an Intel Xeon with
    AVX-512 instructions for it but no AMX, trainings took 1.2 to 1.7 times as long as in float32; with AVX2, ten times.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "float32"


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context in which a network computes in `bf16`, `float32`, or the one that `auto` stands for."""
    return torch.autocast(device.type, torch.bfloat16, enabled=used_precision(precision, device) == "bf16")
