"""Rendered worlds for experiments with the stages of the pipeline, in folders of their own."""

import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from scipy.stats import t as student

from earshot.evaluation.significance import standard_error
from earshot.pipeline.settings import settings_of

WIDTH = 32  # characters of a column with `mean_std_interval`
REPOSITORY = Path(__file__).resolve().parent.parent


def write_params(root: Path, recipe: str, seed: int, changes: Iterable[str]) -> None:
    """params.yaml in a folder: that of the pipeline, a recipe, the seeds and changes."""
    root.mkdir(parents=True, exist_ok=True)
    settings = [word for change in [f"seed={seed}", f"sample.seed={seed}", *changes] for word in ("--set", change)]
    command = ["-m", "earshot", "recipe", f"recipes/{recipe}.yaml", "--params", str(REPOSITORY / "params.yaml")]
    run([*command, "--output", str(root / "params.yaml"), *settings], root)


def run(command: Sequence[str], root: Path, environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """A command of the project, with more variables; what it prints goes to log.txt in the folder.

    Exits with its last line if it fails.
    """
    file = root / "log.txt"
    with file.open("a") as log:
        words, variables = [sys.executable, *command], os.environ | environment
        status = subprocess.run(words, cwd=REPOSITORY, stdout=log, stderr=log, env=variables).returncode
    if status:
        last = next(reversed(file.read_text(errors="replace").split("\n")[:-1]), "")
        sys.exit(f"{' '.join(command)}: exit status {status}: {last}; see {file}")


def stage(words: str, root: Path, workers: int = 1) -> None:
    """One stage under a root, with so many processes and threads, as far as it reads those settings."""
    name, *others = words.split()
    environment = {key: str(workers) for key in ("EARSHOT_WORKERS", "EARSHOT_THREADS") if key in settings_of(name)}
    place = ["--params", str(root / "params.yaml"), "--root", str(root)]
    run(["-m", f"stages.{name}", *others, *place], root, environment)


def evaluate(benchmarks: Iterable[str], root: Path) -> None:
    """The benchmarks under a root that have no metrics yet."""
    for benchmark in benchmarks:
        if not (root / "metrics" / f"{benchmark}.json").exists():
            stage(f"evaluate --benchmark {benchmark}", root)


def render(root: Path, workers: int) -> None:
    """Write the datasets and the scenes of a world with params.yaml, unless they exist."""
    if not (root / "data" / "scenes").exists():
        for name in ("sample", "download", "extract"):
            stage(name, root, workers)
        shutil.rmtree(root / "data" / "clips")


def link(path: Path, target: Path) -> None:
    """Link `path` to the folder `target`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(target)


def mean_std_interval(values: Sequence[float]) -> str:
    """Mean, standard deviation, and Student's 95 % interval of the mean over seeds; of one value, itself."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f}"
    half = float(student.ppf(0.975, len(values) - 1)) * standard_error(np.array(values))
    return f"{mean:.3f} ± {statistics.stdev(values):.3f} [{mean - half:.3f}, {mean + half:.3f}]"
