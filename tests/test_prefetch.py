"""Threads and processes that prepare items: their order, errors, kills and ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from earshot.core.errors import EarshotError
from earshot.core.prefetch import prefetch, prefetch_by_processes


def by_threads(work, items):
    return prefetch(work, items, num_threads=3)


def by_processes(work, items):
    return prefetch_by_processes(work, items, 2, lambda: None)


@pytest.mark.parametrize("run", [by_threads, by_processes])
def test_prefetching_keeps_the_order_and_passes_errors_on(run):
    assert list(run(lambda n: n * n, range(50))) == [n * n for n in range(50)]
    with pytest.raises(ZeroDivisionError):
        list(run(lambda n: 1 / (n - 3), range(10)))
    with pytest.raises(EarshotError, match=r"^shard 4: damaged$"):
        list(run(_damaged, range(10)))


def children():
    """The child processes of this one; other tests may have left some."""
    return {child.pid for child in multiprocessing.active_children()}


def _damaged(number):
    if number == 4:
        raise EarshotError("shard 4: damaged")
    return number


def test_processes_return_tensors_prepare_themselves_and_leave_no_process():
    prepared = torch.zeros(1)
    results = prefetch_by_processes(lambda n: (prepared + n, os.getpid()), range(8), 2, lambda: prepared.add_(100))
    tensors, processes = zip(*results, strict=True)
    assert [int(tensor) for tensor in tensors] == [100 + n for n in range(8)]
    assert len(set(processes)) == 2 and os.getpid() not in processes
    assert prepared == 0  # what a process changes stays there
    before = children()
    unfinished = by_processes(lambda n: n, range(1000))
    assert next(unfinished) == 0 and len(children() - before) == 2
    unfinished.close()
    assert not children() - before


def test_a_killed_process_ends_the_run_with_its_reason():
    def work(number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    before = children()
    expected = r"^a process that prepares batches ended: .*(Killed|unexpectedly).*EARSHOT_LOADERS"
    with pytest.raises(EarshotError, match=expected):
        list(by_processes(work, range(20)))
    assert not children() - before


# A program in the background may have inherited that Ctrl-C is ignored.
SLOW = """
import signal, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from earshot.core.prefetch import prefetch_by_processes
for number in prefetch_by_processes(lambda n: time.sleep(min(n, 2)) or n, range(1000), 2, lambda: None):
    print(number, flush=True)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_parent_ends_its_processes(sent):
    """Ctrl-C reaches all processes of the terminal; a kill the parent alone, and the others notice."""
    process = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, start_new_session=True)
    # One of each process: torch's DataLoader leaves a process that has not begun when its parent is killed.
    assert [process.stdout.readline() for _ in range(2)] == [b"0\n", b"1\n"]
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.kill()
    process.wait(timeout=20)
    for _ in range(100):
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    pytest.fail("processes of the group are left")
