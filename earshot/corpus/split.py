"""The split of a group of clips: training, validation or test.

It depends only on the name of the group, never on other groups, their order, a seed or the machine, unless a published
list decides it. Clips of one source video share a group, so that training and test never share an image.
"""

import hashlib

SPLITS = ("train", "val", "test")
TRAIN_SHARE, VAL_SHARE = 0.8, 0.1  # the rest is the test split


def split_of(group: str) -> str:
    """The split of a group, "train", "val" or "test", 80 / 10 / 10 over many groups."""
    digest = hashlib.sha256(group.encode("utf-8", "surrogateescape")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform on [0, 1)
    if position < TRAIN_SHARE:
        return "train"
    return "val" if position < TRAIN_SHARE + VAL_SHARE else "test"
