"""What the tests share: the folder of real material, where there is one."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips, recordings and photographs named by EARSHOT_REAL_DATA; skips where it is unset."""
    folder = os.environ.get("EARSHOT_REAL_DATA")
    if not folder:
        pytest.skip("EARSHOT_REAL_DATA names no folder of real material")
    return Path(folder).resolve()
