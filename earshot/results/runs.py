"""Finished runs: parameters and scores from folders, DVC experiments, and branches of Git.

A run is a folder or a revision with params.yaml and metrics/. If its labels do not come from the pipeline, labels.txt
describes them. This module reads runs and gives a reason for each one that it leaves out.
"""

import io
import math
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml.error import YAMLError

from earshot.core.csv_files import read_csv
from earshot.core.errors import EarshotError
from earshot.core.json_files import parse_json
from earshot.core.yaml_files import flatten, parse_yaml
from earshot.results.trainings import LABELS, SEEDS

# Refs of DVC experiments: refs/exps/<first two digits>/<rest of the commit that they start from>/<name>.
EXPERIMENTS = re.compile(r"(\S+) refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(\S+)")

KINDS = (".yaml", ".lock", ".txt", ".json", ".csv")
LISTS = (".clips_hash", ".items_hash")


@dataclass(frozen=True)
class FinishedRun:
    """One finished run.

    Args:
        source: its folder, experiment or revision.
        params: by dotted name.
        scores: by `<benchmark>.<metric>`, and of a class by `<benchmark>_classes.<class>.<metric>`, from 0 to 1.
        lists: the hash of the training clips by `<benchmark>.clips_hash`, that of the test items by
            `<benchmark>.items_hash`; runs compare only if these are equal.
    """

    source: str
    params: dict[str, Any]
    scores: dict[str, float]
    lists: dict[str, str] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[Any, ...]:
        return tuple(self.params.get(key) for key in SEEDS)


@dataclass(frozen=True)
class Collection:
    """The runs, and a sentence for each one left out."""

    runs: list[FinishedRun]
    left_out: list[str]


def collect(
    root: Path, folders: Sequence[Path], experiments: bool | Sequence[str], revisions: Sequence[str]
) -> Collection:
    """The runs in `folders`, in the workspace `root`, and in its experiments and revisions.

    `experiments` names some, or is True for all. Of equal runs, only the first counts. Raises EarshotError for a
    folder, experiment or revision that does not exist, and for parameters or metrics that cannot be read.
    """
    places = [place for folder in folders for place in _below(folder)]
    sources = [(str(place), folder_files(place)) for place in places]
    sources.append(("workspace", folder_files(root)))
    if experiments:
        commits = experiment_commits(root)
        names = {name for _, name in commits}
        for name in () if experiments is True else experiments:
            if name not in names:
                listed = ", ".join(sorted(names)) or "there is none"
                raise EarshotError(f"{name}: no such experiment; expected one that dvc exp show lists: {listed}")
        sources += [
            (f"experiment {name}", revision_files(root, commit))
            for commit, name in commits
            if experiments is True or name in experiments
        ]
    sources += [(revision, revision_files(root, revision)) for revision in revisions]
    runs: list[FinishedRun] = []
    left_out: list[str] = []
    for source, files in sources:
        run = read_run(source, files)
        reason = reason_to_leave_out(run, files)
        if reason:
            left_out.append(f"{source}: {reason}")
        elif not any((run.params, run.scores) == (other.params, other.scores) for other in runs):
            runs.append(run)
    return Collection(runs, left_out)


def read_run(source: str, files: Mapping[str, str]) -> FinishedRun:
    """The run in `files`: the text of each file by its path.

    Raises EarshotError for parameters or metrics that cannot be read.
    """
    scores: dict[str, Any] = {}
    for path, text in files.items():
        name, _, kind = path.removeprefix("metrics/").rpartition(".")
        if path.startswith("metrics/") and kind == "json":
            scores |= {f"{name}.{key}": value for key, value in _read_json(f"{source}: {path}", text).items()}
        elif path.endswith("_classes.csv"):
            scores |= {f"{name}.{key}": value for key, value in _read_classes(f"{source}: {path}", text)}
    numbers = {key: value for key, value in scores.items() if isinstance(value, int | float) and math.isfinite(value)}
    params = _read_flat_yaml(f"{source}: params.yaml", files.get("params.yaml", "{}"))
    if "labels.txt" in files:
        params[LABELS] = " ".join(files["labels.txt"].split())
    lists = {key: value for key, value in scores.items() if key.endswith(LISTS) and isinstance(value, str)}
    return FinishedRun(source, params, numbers, lists)


def read_metrics(root: Path, name: str) -> dict[str, float]:
    """The metrics of one stage, empty if it has not run.

    Raises EarshotError for a file that is not a JSON mapping.
    """
    file = root / "metrics" / f"{name}.json"
    try:
        values = parse_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EarshotError(f"{file}: cannot be read as JSON ({error}); run the stage that writes it") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{file}: holds {type(values).__name__}, expected a mapping; run the stage that writes it")
    return values


def reason_to_leave_out(run: FinishedRun, files: Mapping[str, str]) -> str | None:
    """The reason to leave a run out of all tables: no scores, or scores of other parameters; None if it has none."""
    if "params.yaml" not in files:
        return "has no params.yaml"
    measured = {"pretrain", *(key.split(".")[1] for key in run.params if key.startswith("evaluate."))}
    if not any(key.partition(".")[0] in measured for key in run.scores):
        return "has no scores in metrics/"
    locked = _read_flat_yaml(f"{run.source}: dvc.lock", files.get("dvc.lock", "{}"))
    for key, value in locked.items():
        name = key.rpartition("params.yaml.")[2]
        if key.startswith("stages.") and ".params.params.yaml." in key and run.params.get(name) != value:
            now = f"{run.params.get(name)!s:.200}"
            return f"was measured with {name}={value!s:.200}, but params.yaml has {now}; run dvc repro"
    return None


def folder_files(folder: Path) -> dict[str, str]:
    """The text of a run's files, by path within `folder`."""
    paths = [folder / name for name in ("params.yaml", "dvc.lock", "labels.txt")]
    paths += sorted((folder / "metrics").glob("*"))
    try:
        return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths if _is_run_file(path)}
    except (OSError, UnicodeDecodeError) as error:
        raise EarshotError(f"{folder}: cannot be read ({error}); run its stages again") from None


def revision_files(root: Path, revision: str) -> dict[str, str]:
    """The text of a run's files committed in `revision`, by path within `root`.

    Raises EarshotError for an unknown revision.
    """
    if revision.startswith("-"):
        raise EarshotError(f"{revision}: is not a revision; expected a branch, a tag or a commit")
    listed = _git(root, "ls-tree", "--name-only", revision, "--", "params.yaml", "dvc.lock", "metrics/")
    paths = [path for path in listed.splitlines() if path.endswith(KINDS)]
    return {path: _git(root, "show", f"{revision}:./{path}") for path in paths}


def experiment_commits(root: Path) -> list[tuple[str, str]]:
    """The commit and the name of every DVC experiment in the repository of `root`, the newest first."""
    listed = _git(root, "for-each-ref", "--sort=-committerdate", "--format=%(objectname) %(refname)", "refs/exps")
    matches = (EXPERIMENTS.fullmatch(line) for line in listed.splitlines())
    return [(match[1], match[2]) for match in matches if match]


def _below(folder: Path) -> list[Path]:
    """`folder` itself, or the folders of runs below it."""
    places = [file.parent for file in sorted(folder.rglob("params.yaml")) if (file.parent / "metrics").is_dir()]
    if not places:
        raise EarshotError(f"{folder}: holds no run, expected params.yaml and metrics/ in it or in its subfolders")
    return places


def _is_run_file(path: Path) -> bool:
    return path.is_file() and path.suffix in KINDS


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, encoding="utf-8", errors="replace")
    if done.returncode:
        raise EarshotError(f"git {' '.join(words[:3])}: {done.stderr.strip() or 'failed'}; see git branch --all")
    return done.stdout


def _read_json(name: str, text: str) -> dict[str, Any]:
    try:
        values = parse_json(text)
    except ValueError as error:
        raise EarshotError(f"{name}: cannot be read as JSON ({error}); run the stage that writes it") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{name}: holds {type(values).__name__}, expected a mapping; run the stage that writes it")
    return values


def _read_classes(name: str, text: str) -> Iterator[tuple[str, float]]:
    """Every number of a table of classes, by `<class>.<column>`."""
    rows = list(read_csv(io.StringIO(text, newline="")))  # the name of a class may have several lines
    if rows and next(iter(rows[0])) == "network":
        return  # correspondence has one row per network, whose scores are also in its metrics
    for row in rows:
        if not row.get("class"):
            raise EarshotError(f"{name}: a row has no class; run the stage that writes it")
        for column, value in row.items():
            if column != "class" and value != "":  # empty for a class that a benchmark could not score
                try:
                    yield f"{row['class']}.{column}", float(value)
                except (TypeError, ValueError):
                    raise EarshotError(f"{name}: {column} of {row['class']} is {value!r}, expected a number") from None


def _read_flat_yaml(name: str, text: str) -> dict[str, Any]:
    advice = "restore the file, or run the stages of the run again"
    try:
        values = parse_yaml(text)
    except (ValueError, YAMLError) as error:
        raise EarshotError(f"{name}: cannot be read as YAML: {' '.join(str(error).split())}; {advice}") from None
    if not isinstance(values, dict):
        raise EarshotError(f"{name}: holds {type(values).__name__}, expected a mapping; {advice}")
    return dict(flatten(values))
