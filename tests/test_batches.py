"""Batches: what is in memory is not read again, no more than two pools are, and neither changes a batch."""

import pytest

from earshot.training.batches import Batches


class Counted:
    """A group of items that counts how often it is read, and by whom it is still held."""

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size, self.reads = number, size, 0

    def __len__(self) -> int:
        return self.size

    def read(self) -> list[tuple[int, int]]:
        self.reads += 1
        return [(self.number, item) for item in range(self.size)]


def batches_of(groups: list[Counted], pool: int) -> Batches:
    return Batches(groups, batch_size=16, seed=0, pool=pool)


@pytest.mark.parametrize(("pool", "most"), [(4096, 1.0), (320, 1.0), (160, 4.0), (32, 5.0)])
def test_groups_in_memory_are_not_read_again(pool, most):
    """Five epochs of ten groups; one pool or two hold them all, at 160 three do, at 32 each is a pool."""
    groups = [Counted(number, 50 + number) for number in range(10)]
    batches, items = batches_of(groups, pool), sum(map(len, groups))
    drawn = []
    for number in range(5 * batches.batches_per_epoch):
        drawn += batches[number]
        assert sum(map(len, batches._read.values())) <= max(2 * (pool + 2 * 60), items if most == 1 else 0)
    reads = sum(group.reads for group in groups) / len(groups)
    assert 1 <= reads <= most
    epoch = 16 * batches.batches_per_epoch
    assert all(len(set(drawn[start : start + epoch])) == epoch for start in range(0, len(drawn), epoch))
    for number in (0, 7, 3 * batches.batches_per_epoch):  # the same as of batches that have read nothing else
        fresh = batches_of([Counted(number, 50 + number) for number in range(10)], pool)
        assert fresh[number] == drawn[16 * number : 16 * (number + 1)]


def test_a_corpus_of_two_pools_is_hardly_read_again():
    """The groups of the older pool that the next one does not need leave memory: about a quarter of all."""
    groups = [Counted(number, 65) for number in range(10)]
    batches = batches_of(groups, 256)
    for number in range(20 * batches.batches_per_epoch):
        batches[number]
    assert sum(group.reads for group in groups) / len(groups) < 20 / 2
