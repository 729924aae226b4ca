"""The split: which side of training, validation and test a group of clips is on, for ever.

It depends on the name of the group alone: not on the other groups, their order, a seed or the machine. Clips of one
source video share a group, so that no picture is trained on and tested on.
"""

import hashlib

SPLITS = ("train", "val", "test")
TRAIN_SHARE, VAL_SHARE = 0.8, 0.1  # the rest is for testing


def split_of(group: str) -> str:
    """Name the split of a group, "train", "val" or "test", 80 / 10 / 10 over many groups."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64  # even on [0, 1)
    if place < TRAIN_SHARE:
        return "train"
    return "val" if place < TRAIN_SHARE + VAL_SHARE else "test"
