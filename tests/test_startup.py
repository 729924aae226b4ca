"""What takes long to import is loaded only where it is used: a command, a stage and a child process start fast."""

import subprocess
import sys

import pytest
from conftest import REPOSITORY

NETWORKS = {"torch", "torchaudio"}
CHARTS = {"matplotlib"}
DATA = {"librosa", "numpy", "pyarrow", "pydantic", "scipy"}
# Nothing may load these at its start: each takes as long as everything else together.
NEVER = {"dask", "distributed", "dvc", "pandas", "scipy.stats", "sklearn", "sympy", "torch._dynamo", "torchvision"}
STAGES = [f"stages.{name}" for name in ("sample", "download", "extract", "describe", "label", "explain")]
# The modules of what the stages do in child processes.
CHILDREN = [
    "earshot.core.subprocess_pool",
    "earshot.download.cutting",
    "earshot.download.partial_download",
    "earshot.media.decoder_process",
    "earshot.media.stream_process",
    "earshot.media.tar_process",
]
READING = [f"earshot.commands.{name}" for name in ("completeness", "merge", "run", "scores", "status", "subsets")]


@pytest.mark.parametrize(
    ("modules", "slow"),
    [
        (["earshot.commands.main"], NETWORKS | CHARTS | DATA),
        (READING, NETWORKS | CHARTS),
        (STAGES, NETWORKS | CHARTS),
        (["stages.report"], NETWORKS),  # which draws charts
        (CHILDREN, NETWORKS | CHARTS | DATA - {"numpy"}),
        # The parameters of every stage, benchmark, exhibit and network, which `earshot recipe` and `tables` read.
        (["stages.pretrain", "stages.correspond", "stages.evaluate", "earshot.params.schema"], set()),
    ],
    ids=["help", "reading", "stages", "report", "children", "parameters"],
)
def test_what_is_slow_to_import_is_not_loaded(modules, slow):
    code = f"import sys, {', '.join(modules)}; print(*sorted({NEVER | slow!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert not done.stdout.split()
