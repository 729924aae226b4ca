"""The feed of a training: threads or processes read, decode and crop the next batches while the network trains.

A batch is a pure function of its number, so that it is the same whoever prepares it. Threads share what they have read
and hold Python's lock for a part of the work: a few of them are the most that help. Processes scale further, and each
keeps its own pools of clips in memory; a training that feeds a fast GPU needs them.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import cv2

from earshot.core.prefetch import prefetch, prefetch_by_processes
from earshot.pipeline.settings import settings

Batch = TypeVar("Batch")


def feed(prepare: Callable[[int], Any], on_device: Callable[[Any], Batch], numbers: range) -> Iterator[Batch]:
    """The batches of these numbers, in order, on the network's device.

    Args:
        prepare: prepares a batch in CPU memory; it must not change its objects in a way that matters.
        on_device: moves what `prepare` returned to the device; always in a thread of this process.
        numbers: of the batches.

    Raises EarshotError if a loader process was killed.
    """
    if not settings().loaders:
        return prefetch(lambda number: on_device(prepare(number)), numbers, settings().threads)
    return prefetch(on_device, prefetch_by_processes(prepare, numbers, settings().loaders, _one_thread), 1)


def _one_thread() -> None:
    """OpenCV would wait for its threads, which a copy of a process does not have; torch sets its own number to 1."""
    cv2.setNumThreads(0)
