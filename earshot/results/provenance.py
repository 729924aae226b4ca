"""Which run a report or a figure is of: its name, and the commit that it started from with its date."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

EXPERIMENT = "DVC_EXP_NAME"  # the variable with the name of the experiment that DVC runs


@dataclass(frozen=True)
class Provenance:
    """The name of a run, its commit, shortened, and that commit's date; both empty outside Git."""

    name: str
    commit: str = ""
    date: str = ""

    def __str__(self) -> str:
        return ", ".join(filter(None, [self.name, self.date, self.commit and f"commit {self.commit}"]))


def provenance(root: Path, name: str = "", revision: str = "HEAD") -> Provenance:
    """That of the run in `root`, or of one of its revisions; without a name, DVC's or that of the branch."""
    commit, _, date = _git(root, "log", "-1", "--format=%h %cs", revision).partition(" ")
    branch = _git(root, "rev-parse", "--abbrev-ref", "HEAD")
    return Provenance(name or os.environ.get(EXPERIMENT, "") or branch or "this run", commit, date)


def _git(root: Path, *words: str) -> str:
    """The answer of Git; empty where `root` is not the top of a repository, or Git has none."""
    if not (root / ".git").exists():
        return ""
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, encoding="utf-8", errors="replace")
    return done.stdout.strip() if done.returncode == 0 else ""
