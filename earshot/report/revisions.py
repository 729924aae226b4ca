"""Runs that are not in the workspace: parameters and metrics from Git, exhibits and ledgers from DVC's cache."""

import shutil
from pathlib import Path

from earshot.core.errors import EarshotError
from earshot.core.yaml_files import flatten, read_yaml
from earshot.report.sources import LABELS, LEDGERS, Source
from earshot.results.runs import experiment_commits, folder_files, revision_files

NOT_CACHED = "its exhibits are not in DVC's cache ({reason}); dvc fetch gets them, or dvc exp apply and dvc repro"


def folder_source(folder: Path, name: str) -> Source:
    """The run in a folder.

    Raises EarshotError where it has no params.yaml or no metrics.
    """
    if not folder_files(folder).keys() - {"params.yaml", "dvc.lock"} or not (folder / "params.yaml").exists():
        raise EarshotError(f"{folder}: holds no run, wanted params.yaml and metrics/ in it; run its stages first")
    return Source(name, folder, dict(flatten(read_yaml(folder / "params.yaml"))))


def experiment_source(root: Path, name: str, folder: Path) -> Source:
    """The run of a DVC experiment, its files put into `folder`.

    Raises EarshotError for an experiment that there is not.
    """
    commits = {found: commit for commit, found in reversed(experiment_commits(root))}  # of equal names the newest
    if name not in commits:
        known = ", ".join(commits) or "there is none"
        raise EarshotError(f"{name}: no such experiment; wanted one that dvc exp show lists: {known}")
    return revision_source(root, commits[name], name, folder)


def revision_source(root: Path, revision: str, name: str, folder: Path) -> Source:
    """The run of a revision, its files put into `folder`; without exhibits where DVC's cache has them not.

    Raises EarshotError for a revision that Git does not know, or that holds no run.
    """
    for path, text in revision_files(root, revision).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    if not (folder / "metrics").exists():
        raise EarshotError(f"{revision}: holds no run, wanted params.yaml and metrics/ committed; run dvc repro there")
    absent = _fetch(root, revision, folder)
    found = folder_source(folder, name)
    return Source(name, folder, found.params, absent)


def _fetch(root: Path, revision: str, folder: Path) -> str:
    """Copy exhibits and ledgers of a revision out of the cache; in words why not, or nothing."""
    from dvc.api import DVCFileSystem  # takes a second to import
    from dvc.exceptions import DvcException
    from dvc_data.index import DataIndexDirError  # of a folder that is not in the cache; no DvcException

    reason = ""
    try:
        files = DVCFileSystem(str(root.resolve()), rev=revision)
        for path in ("data/explain", LABELS, *LEDGERS.values()):
            if files.exists(path):
                files.get(path, str(folder / path), recursive=True)
            elif path == "data/explain":
                reason = f"{revision} has no data/explain"
    except (DvcException, DataIndexDirError, OSError) as error:
        shutil.rmtree(folder / "data", ignore_errors=True)  # a part of them would be told as the whole
        reason = " ".join(str(error).split()) or type(error).__name__
    return NOT_CACHED.format(reason=reason[:200]) if reason else ""
