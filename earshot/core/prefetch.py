"""Threads or processes that prepare items before the caller needs them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from earshot.core.errors import EarshotError

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(work: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """Yield `work(item)` for each item in order; threads prepare the next items while the caller uses earlier ones."""
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as executor:
        try:
            for item in items:
                waiting.append(executor.submit(work, item))
                if len(waiting) > num_threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def prefetch_by_processes(
    work: Callable[[Item], Result], items: Sequence[Item], num_processes: int, prepare: Callable[[], None]
) -> Iterator[Result]:
    """Yield `work(item)` for each item in order; processes prepare the next items while the caller uses earlier ones.

    The processes are copies of this one (fork), so `work` may be a method of any object; it must not use a GPU. Each
    has one thread. Tensors come back through shared memory. What `work` changes in its objects stays in its process.

    Args:
        work: of an item.
        items: in order; process i prepares the items i, i + num_processes and so on.
        num_processes: two items of each are prepared before they are needed.
        prepare: is called once in each process, before its first item.

    Raises:
        EarshotError: a process was killed.
        What `work` raises.
    """
    from torch.utils.data import DataLoader  # the threads need no torch

    loader: Any = DataLoader(
        _Worker(work),  # type: ignore[arg-type]  # DataLoader calls __getitem__ alone
        batch_size=None,
        sampler=items,
        num_workers=num_processes,
        collate_fn=_unchanged,
        multiprocessing_context="fork",
        worker_init_fn=lambda _: prepare(),
    )
    try:
        for result, error in loader:
            if error is not None:
                raise error
            yield result
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise EarshotError(
            f"a process that prepares batches ended: {error}; most often memory or /dev/shm is too small: "
            "lower EARSHOT_LOADERS, or unset it so that threads prepare them"
        ) from None


class _Worker:
    """The result or the error of an item; DataLoader itself would raise another error, whose text is a traceback."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def __getitem__(self, item: Any) -> tuple[Any, Exception | None]:
        try:
            return self.work(item), None
        except Exception as error:
            return None, error


def _unchanged(item: Any) -> Any:
    return item
