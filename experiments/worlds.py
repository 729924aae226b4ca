"""Rendered worlds for experiments with the stages of the pipeline, in folders of their own."""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.stats import t as student

from earshot.commands.recipe import apply_recipes, committed
from earshot.core.errors import EarshotError
from earshot.core.params import split_override
from earshot.core.yaml_files import flatten, parse_yaml, read_yaml
from earshot.evaluation.significance import standard_error
from earshot.pipeline.settings import settings_of
from earshot.results.recipes import recipe_values

BEFORE = ("sample", "download", "extract", "describe")  # stages of the world, whose results rows link to
WIDTH = 32  # characters of a column with `mean_std_interval`
REPOSITORY = Path(__file__).resolve().parent.parent


@cache
def committed_params() -> str:
    """The text of the committed params.yaml, with which every experiment begins."""
    return committed(REPOSITORY / "params.yaml")


@cache
def declared() -> dict[str, Any]:
    """The stages of dvc.yaml."""
    return read_yaml(REPOSITORY / "dvc.yaml")["stages"]


def add_options(parser: argparse.ArgumentParser, rows: Sequence[str], folder: str) -> None:
    """Add the options that all experiments have."""
    parser.add_argument("--seeds", type=int, default=3, help="how many, from --first-seed on")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", default=",".join(rows), help="separated by commas")
    parser.add_argument("--workers", type=int, default=2, help="rows that run in parallel")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, default=REPOSITORY / ".earshot" / folder)


def rows_in(text: str, rows: Collection[str], option: str) -> list[str]:
    """The rows that an option names, separated by commas; exits for one that is none."""
    names = [name for name in text.split(",") if name]
    if unknown := sorted(set(names) - set(rows)):
        sys.exit(f"{option} {unknown[0]}: is not a row; the rows are {', '.join(rows)}")
    return names


def recipe_file(recipe: str) -> Path:
    """The file of a recipe."""
    return REPOSITORY / "recipes" / f"{recipe}.yaml"


def with_seeds(seed: int, changes: Iterable[str]) -> list[str]:
    """The settings of a seed: another world and another training; and changes."""
    return [f"seed={seed}", f"sample.seed={seed}", *changes]


def write_params(root: Path, recipe: str, seed: int, changes: Sequence[str]) -> None:
    """Write params.yaml in a folder: that of the pipeline, a recipe, the seeds and changes.

    Exits as `check_params` does, and for a setting that is no parameter.
    """
    check_params(root, recipe, seed, changes)
    root.mkdir(parents=True, exist_ok=True)
    try:
        apply_recipes([recipe_file(recipe)], committed_params(), root / "params.yaml", with_seeds(seed, changes))
    except EarshotError as error:
        sys.exit(str(error))


def check_params(root: Path, recipe: str, seed: int, changes: Sequence[str], but: Collection[str] = ()) -> None:
    """Exit if a stage or benchmark that has finished in a folder had other values of its parameters, `but` of some."""
    names, file = finished(root), root / "params.yaml"
    if not names or not file.exists():
        return
    then = dict(flatten(read_yaml(file)))
    now = dict(flatten(parse_yaml(committed_params()))) | recipe_values([recipe_file(recipe)])
    now |= dict(map(split_override, with_seeds(seed, changes)))
    for key in sorted(then.keys() & now.keys() - {*but}):  # a key of one of them is of another version of the code
        readers = [name for name in names if then[key] != now[key] and reads(name, key)]
        if readers:
            sys.exit(
                f"{root}: its {readers[0]} was run with {key}={json.dumps(then[key])}, and now it is "
                f"{json.dumps(now[key])}; set it as it was, name another folder with --output, or remove this one"
            )


def finished(root: Path) -> list[str]:
    """The stages and benchmarks that have finished in a folder, and those before them that have no metrics there."""
    names = sorted(file.stem for file in (root / "metrics").glob("*.json"))
    labeled = ["label"] if "pretrain" in names else []
    return list(dict.fromkeys([*BEFORE, *labeled, *names])) if names else []


def reads(name: str, key: str) -> bool:
    """Whether a stage or a benchmark declares in dvc.yaml that it reads a parameter."""
    stage = declared().get(name) or declared()["evaluate"]["do"]
    groups = [group.replace("${key}", name) for group in stage["params"]]
    return any(f"{key}.".startswith(f"{group}.") for group in groups)


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
    if not (root / "metrics" / "extract.json").exists():
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


def run_all(jobs: Mapping[str, Callable[[], None]], workers: int) -> list[str]:
    """Run jobs by their names in parallel, and print how long each took; the names and errors of those that failed.

    One that fails does not stop the others.
    """
    failures = []
    with ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(minutes, job): name for name, job in jobs.items()}
        try:
            for done in as_completed(waiting):
                error = done.exception()
                if error is None:
                    print(f"{waiting[done]}: {done.result():.1f} minutes", flush=True)
                    continue
                failures.append(f"{waiting[done]}: {error}")
                print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
                if not isinstance(error, SystemExit | EarshotError):
                    traceback.print_exception(error)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            sys.exit("stopped; the same command continues")
    return failures


def minutes(job: Callable[[], None]) -> float:
    """Run a job; how long it took."""
    started = time.monotonic()
    job()
    return (time.monotonic() - started) / 60


def measured(folder: Path, names: Iterable[str]) -> list[tuple[int, str, Path]]:
    """Every seed and row of a folder that has metrics, and its own folder, in the order of seeds and `names`."""
    seeds = sorted(int(number) for path in folder.glob("seed-*") if (number := path.name[5:]).isdecimal())
    rows = [(seed, name, folder / f"seed-{seed}" / name) for seed in seeds for name in names]
    return [row for row in rows if any((row[2] / "metrics").glob("*.json"))]


def finish(file: Path, lines: Sequence[dict[str, Any]], report: Callable[[Any], None], failures: Sequence[str]) -> None:
    """Write the lines to a CSV file and report them; exit with status 1 if rows failed, or there are no lines."""
    if lines:
        with file.open("w", newline="") as table:
            columns = list(dict.fromkeys(key for line in lines for key in line))
            writer = csv.DictWriter(table, fieldnames=columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
        report(lines)
    if failures:
        others = f"the finished ones are in {file}" if lines else "no row is finished"
        sys.exit("\n".join([f"{len(failures)} failed, {others}; the same command tries again:", *failures]))
    if not lines:
        sys.exit(f"{file.parent}: holds no row with all its scores; name rows with --rows and seeds with --seeds")
