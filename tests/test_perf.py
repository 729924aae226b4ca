"""The program that times the papers' trainings, in its small form."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_the_trainings_of_the_papers_are_timed():
    command = [sys.executable, "-m", "perf.gpu", "--small"]
    settings = os.environ | {"EARSHOT_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=REPOSITORY, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if re.search(r"%\s+[\d,.]+$", line)]
    assert len(rows) == 6
    for row in rows:
        fed, kept, ratio, _, share, hours = row[36:].replace(",", "").replace("%", "").split()
        assert float(fed) > 0 and float(kept) > 0 and 0 < float(share) <= 110 and float(hours) > 0
        assert abs(float(ratio) - float(fed) / float(kept)) < 0.01 + 1 / float(kept)
    numpy, *torch = re.findall(r"^textures a second, .*: ([\d,]+)(?:, difference ([\d.]+))?$", done.stdout, re.M)
    assert int(numpy[0].replace(",", "")) > 0 and len(torch) == 2
    for textures, difference in torch:
        assert int(textures.replace(",", "")) > 0 and float(difference) < 0.01
