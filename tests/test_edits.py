"""An edit reruns what it changes: DVC lists the stale stages after an edit of code."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, committed
from dvc.dependency import Dependency
from dvc.repo import Repo

from earshot.core.params import ABSENT

# Files of the code, and the stages that DVC must run when they change; what follows runs where their outputs differ.
EDITS = {
    "the rendered world": ("earshot/world/**/*.py", {"sample"}),
    "pages and templates": ("earshot/report/**/*.*", {"report"}),
    # The exhibit of clusters charts the sounds of centroids.
    "texture": ("earshot/sound/**/texture.py", {"describe", "explain@clusters"}),
    "label models": ("earshot/labels/models/*.py", {"label", "explain@clusters"}),
    "parameters of trainings": ("earshot/params/training.py", {"pretrain", "correspond"}),
    "parameters of the pipeline": ("earshot/params/schema.py", set()),
    "commands": ("earshot/commands/**/*.py", set()),
}


class Project:
    """A copy of the code and of dvc.yaml, of which DVC has recorded what every stage depends on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "params.yaml").write_text(committed("params.yaml"))
        for name in ("dvc.yaml", ".dvcignore", ABSENT):
            shutil.copy(REPOSITORY / name, root)
        for name in ("earshot", "stages"):
            shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        self.stages = Repo.init(str(root), no_scm=True).index.stages
        for _, dependency in self._code():
            dependency.save()

    def _code(self) -> Iterator[tuple[str, Dependency]]:
        for stage in self.stages:
            for each in stage.deps:
                if each.def_path.startswith(("earshot/", "stages/")):
                    yield stage.name, each

    def stale_stages(self) -> dict[str, set[str]]:
        """The stages that DVC would run, and the code that has changed of what each depends on."""
        changed: dict[str, bool] = {}
        stale: dict[str, set[str]] = {}
        for stage, dependency in self._code():
            path = dependency.def_path
            if path not in changed:
                changed[path] = bool(dependency.status())
            if changed[path]:
                stale.setdefault(stage, set()).add(path)
        return stale


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    project_copy = Project(tmp_path_factory.mktemp("edits"))
    assert not project_copy.stale_stages()
    return project_copy


@contextlib.contextmanager
def edited(root: Path, pattern: str) -> Iterator[list[str]]:
    """Append a line to each matching file; yield the names of these files."""
    texts = {file: file.read_bytes() for file in root.glob(pattern) if file.is_file()}
    assert texts, f"no file has the name {pattern}"
    for file, text in texts.items():
        file.write_bytes(text + b"\nEDITED = True\n")
    try:
        yield [str(file.relative_to(root)) for file in texts]
    finally:
        for file, text in texts.items():
            file.write_bytes(text)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_makes_stale_what_it_changes(project, edit):
    pattern, stages = EDITS[edit]
    with edited(project.root, pattern):
        assert project.stale_stages().keys() == stages


@pytest.mark.parametrize(
    ("pattern", "stage"), [("earshot/benchmarks/*.py", "evaluate@"), ("earshot/exhibits/*.py", "explain@")]
)
def test_an_edit_of_a_benchmark_or_an_exhibit_makes_it_alone_stale(project, pattern, stage):
    with edited(project.root, pattern) as files:
        stale = project.stale_stages()
    assert stale and all(name.startswith(stage) for name in stale)
    for name, changed in stale.items():
        assert changed == {file for file in files if Path(file).stem == name.removeprefix(stage)}


def test_an_edit_of_the_parameters_of_a_stage_makes_that_stage_stale(project):
    with edited(project.root, "earshot/params/*.py") as files:
        stale = project.stale_stages()
    for stem in {Path(file).stem for file in files} - {"__init__", "schema", "training"}:
        stages = {name for name, changed in stale.items() if f"earshot/params/{stem}.py" in changed}
        assert {name.partition("@")[0] for name in stages} == ({stem} if stem != "download" else set())


def test_no_edit_fetches_again_what_was_fetched(project):
    with edited(project.root, "earshot/**/*.py"), edited(project.root, "stages/*.py"):
        stale = project.stale_stages()
    assert "download" not in stale
    assert {name.partition("@")[0] for name in stale} > {"sample", "extract", "evaluate", "explain", "report"}
