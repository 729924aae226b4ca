"""Work that threads do ahead of the one who needs it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """`work(item)` for every item, in order, prepared by threads while the caller is busy with earlier ones."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
