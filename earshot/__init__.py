"""Earshot learns to see from what can be heard."""

import os

# Read by torch as it is imported: its tensors lie in huge pages. On a virtual machine with pages of 4 KB, copying large
# tensors was 15 times slower, and training three times.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
