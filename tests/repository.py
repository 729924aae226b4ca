"""A copy of this repository under Git and DVC, in which tests run what users run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY, committed

from earshot.commands.recipe import apply_recipes

GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}


class Repository:
    """A copy of this repository's tracked files under Git and DVC, with the parameters of a tiny run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "repository"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, listed.stdout.split("\0")):
            if (REPOSITORY / name).exists():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / name, self.folder / name)
        apply_recipes([REPOSITORY / "tests" / "tiny.yaml"], committed("params.yaml"), self.folder / "params.yaml")
        self._set_environment(folder)
        self.git("init", "--quiet")
        self.commit()

    @classmethod
    def copy_of(cls, other: Path, folder: Path) -> "Repository":
        """A copy of the repository in another folder, with its data and DVC's cache."""
        copy = cls.__new__(cls)
        copy.folder = folder / "repository"
        shutil.copytree(other / "repository", copy.folder, symlinks=True)
        copy._set_environment(folder)
        return copy

    def _set_environment(self, folder: Path) -> None:
        folders = {"HOME": str(folder), "DVC_SITE_CACHE_DIR": str(folder / "site"), "DVC_NO_ANALYTICS": "1"}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, **GIT, **folders, "PATH": path}

    def git(self, *words: str) -> str:
        return self.run("git", *words)

    def dvc(self, *words: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *words)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "a state")

    def metrics(self, name: str) -> dict:
        return json.loads((self.folder / "metrics" / f"{name}.json").read_text())

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command here; check that it succeeds, or fails if `fails`; return its output."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert (done.returncode != 0) == fails, done.stdout
        return done.stdout


def stages_run(output: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", output)
