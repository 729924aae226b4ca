"""Runs outside the workspace: parameters and metrics from Git, exhibits and ledgers from DVC's cache."""

import shutil
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.report.sources import LABELS, PREDICTIONS, Source
from earshot.results.clip_outcomes import LEDGERS
from earshot.results.runs import experiment_commits, folder_files, revision_files

NOT_CACHED = "its exhibits are not in DVC's cache ({reason}); run dvc fetch, or dvc exp apply and dvc repro"


def folder_source(folder: Path, name: str) -> Source:
    """The run in a folder.

    Raises EarshotError if it has no params.yaml or no metrics.
    """
    if not folder_files(folder).keys() - {"params.yaml", "dvc.lock"} or not (folder / "params.yaml").exists():
        raise EarshotError(f"{folder}: holds no run, expected params.yaml and metrics/; run its stages first")
    return Source(name, folder, dict(flatten(read_yaml(folder / "params.yaml"))))


def experiment_source(root: Path, name: str, folder: Path) -> Source:
    """The run of a DVC experiment, with its files copied into `folder`.

    Raises EarshotError for an unknown experiment.
    """
    commits = {
        experiment: commit for commit, experiment in reversed(experiment_commits(root))
    }  # of equal names, the newest
    if name not in commits:
        known = ", ".join(commits) or "there is none"
        raise EarshotError(f"{name}: no such experiment; expected one that dvc exp show lists: {known}")
    return revision_source(root, commits[name], name, folder)


def revision_source(root: Path, revision: str, name: str, folder: Path) -> Source:
    """The run of a revision, with its files copied into `folder`, and its exhibits if DVC's cache has them.

    Raises EarshotError for an unknown revision, or one without a run.
    """
    for path, text in revision_files(root, revision).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    if not (folder / "metrics").exists():
        raise EarshotError(
            f"{revision}: holds no run, expected committed params.yaml and metrics/; run dvc repro there"
        )
    absent = _fetch(root, revision, folder)
    source = folder_source(folder, name)
    return Source(name, folder, source.params, absent)


def _fetch(root: Path, revision: str, folder: Path) -> str:
    """Copy exhibits and ledgers of a revision from the cache; the reason if that fails, else empty."""
    from dvc.api import DVCFileSystem  # importing takes a second
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError  # raised for a folder that is not in the cache; not a DvcException

    reason = ""
    try:
        files = DVCFileSystem(str(root.resolve()), rev=revision)
        for path in ("data/explain", LABELS, PREDICTIONS, *LEDGERS.values()):
            if files.exists(path):
                files.get(path, str(folder / path), recursive=True)
            elif path == "data/explain":
                reason = f"{revision} has no data/explain"
    except (DvcException, DataIndexDirError, OSError) as error:
        shutil.rmtree(folder / "data", ignore_errors=True)  # a part of them would look like all of them
        reason = " ".join(str(error).split()) or type(error).__name__
    return NOT_CACHED.format(reason=reason[:200]) if reason else ""
