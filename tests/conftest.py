"""Shared by the tests: the folder of real media, if there is one, and a tiny run of the whole pipeline."""

import atexit
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from filelock import FileLock

from earshot.commands.main import cli
from earshot.commands.recipe import apply_recipes
from earshot.core.subprocess_pool import ChildProcess
from earshot.pipeline.settings import settings

REPOSITORY = Path(__file__).parent.parent
STAGES = ["sample", "download", "extract", "describe", "label", "pretrain"]

hypothesis.settings.register_profile("any machine", deadline=None)  # a busy machine fails no test
hypothesis.settings.load_profile("any machine")


# The files that take longest begin first, so that no processor waits for them at the end.
LONGEST = ["test_dvc.py", "test_faults.py", "test_download.py", "test_report_browser.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST)))


def committed(name: str) -> str:
    """The text of a file as it was last added to Git: what a user tries in params.yaml must not matter to a test."""
    done = subprocess.run(["git", "show", f":./{name}"], cwd=REPOSITORY, capture_output=True, text=True)
    return (REPOSITORY / name).read_text() if done.returncode else done.stdout


def earshot(command: str, *words: object) -> None:
    """Run a command of `earshot` in this process: it prints, and a user's mistake is a SystemExit of one line."""
    cli.main([command, *map(str, words)], prog_name="earshot", standalone_mode=False)


def copy_committed(folder: str, root: Path) -> None:
    """Write below `root` the files of a folder as they were last added to Git."""
    listed = subprocess.run(["git", "ls-files", folder], cwd=REPOSITORY, capture_output=True, text=True)
    names = listed.stdout.splitlines() or [f"{folder}/{file.name}" for file in (REPOSITORY / folder).iterdir()]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(committed(name))


_FOLDER = tempfile.TemporaryDirectory(prefix="earshot-params-")
atexit.register(_FOLDER.cleanup)
PARAMS = Path(_FOLDER.name) / "params.yaml"  # as committed
PARAMS.write_text(committed("params.yaml"))


@pytest.fixture(scope="module")
def one_process():
    """Train in this process: two workers would take longer to start than to train."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EARSHOT_WORKERS", "1")
        patch.setenv("EARSHOT_DEVICE", "cpu")
        settings.cache_clear()
        yield
    settings.cache_clear()
    torch.set_num_threads(threads)


@pytest.fixture
def change_setting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Sets an environment variable EARSHOT_*, until the test ends."""

    def change(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield change
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real clips, recordings and photographs named by EARSHOT_REAL_DATA; skips where it is unset."""
    folder = os.environ.get("EARSHOT_REAL_DATA")
    if not folder:
        pytest.skip("EARSHOT_REAL_DATA names no folder of real material")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    """A root with params.yaml, data/, models/ and metrics/ of a tiny run up to pretrain; created once, read only."""
    with _created_once(tmp_path_factory, "tiny") as (root, finished):
        if not finished:
            apply_recipes([REPOSITORY / "tests" / "tiny.yaml"], committed("params.yaml"), root / "params.yaml")
            for stage in STAGES:
                run_stage(stage, root)
    return root


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory) -> Path:
    """The folder of a repository in which `dvc repro` has run the whole pipeline, tiny; created once, to be copied."""
    from repository import Repository

    with _created_once(tmp_path_factory, "reproduced") as (folder, finished):
        if not finished:
            new = Repository(folder)
            (folder / "output").write_text(new.dvc("repro"))
            new.commit()
    return folder


@pytest.fixture(scope="module")
def repository(reproduced, tmp_path_factory):
    """A copy of that repository, for the tests of one module."""
    from repository import Repository

    return Repository.copy_of(reproduced, tmp_path_factory.mktemp("repository"))


@contextlib.contextmanager
def _created_once(tmp_path_factory, name: str) -> Iterator[tuple[Path, bool]]:
    """A folder that all processes share, and whether it is finished; it is where the block ends."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with FileLock(shared / f"{name}.lock"):
        (shared / name).mkdir(exist_ok=True)
        yield shared / name, (shared / name / "finished").exists()
        (shared / name / "finished").touch()


def run_stage(stage: str, root: Path, *more: str) -> str:
    """Run `python -m stages.<stage>` to its end under `root`, with the parameters there; its closing line."""
    options = ["--params", str(root / "params.yaml"), "--root", str(root)]
    command = [sys.executable, "-m", *f"stages.{stage}".split(), *options]
    done = subprocess.run([*command, *more], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def without_children():
    """The work of child processes is done in this process; starting them takes most of the time of many examples."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChildProcess, "run", lambda child, item, seconds=None: child.work(item))
        patch.setattr(ChildProcess, "start", lambda child: os.getpid())
        yield
