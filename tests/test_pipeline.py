"""dvc.yaml, as DVC resolves it, and the stage scripts agree on parameters, inputs, outputs and code."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, committed
from dvc.dependency.param import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage
from ruamel.yaml import YAML

from earshot.core.files import writing_stage
from earshot.core.params import ABSENT, declared_keys, load_params

# With the benchmarks that have no sample data: in params.yaml they are comments of this form.
PARAMS = re.sub("^#(?=  )", "", committed("params.yaml"), flags=re.M)
CHOICES = {name: list(YAML(typ="safe").load(PARAMS)[name]) for name in ("evaluate", "explain")}
NAMES = ["sample", "download", "extract", "describe", "label", "pretrain", "correspond", *CHOICES, "report"]
STAGES = [(name, choice) for name in NAMES for choice in CHOICES.get(name, [None])]
each_stage = pytest.mark.parametrize(("name", "choice"), STAGES, ids=lambda value: value or "")
# Code that a stage need not declare, because its effect on results arrives with the data.
COVERED_BY_DATA = {
    # Benchmarks of recordings use models/descriptor, which changes if any described moment does.
    "esc50": "earshot/sound",
    "dcase": "earshot/sound",
}
# Packages that take long to import, and the stages that may import them at their start.
EXHIBITS = {f"explain@{name}" for name in CHOICES["explain"]}
OF_NETWORKS = {"pretrain", "correspond", *EXHIBITS, *(f"evaluate@{name}" for name in CHOICES["evaluate"])}
SLOW = {
    "torch": OF_NETWORKS - {"explain@clusters"},
    "matplotlib": EXHIBITS | {"report"},
} | dict.fromkeys(("dask", "distributed", "dvc", "pandas", "sklearn", "sympy", "torchvision"), set[str]())
SPEED = "earshot/__init__.py"  # sets how torch allocates memory; changes no result


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with dvc.yaml and the parameters of every benchmark and exhibit."""
    root = tmp_path_factory.mktemp("declared")
    (root / "params.yaml").write_text(PARAMS)
    for name in ("dvc.yaml", ABSENT):
        shutil.copy(REPOSITORY / name, root)
    return root


@pytest.fixture(scope="module")
def resolved(project) -> dict[str, PipelineStage]:
    """The stages as DVC resolves them, by the names that it gives them."""
    with Repo.init(str(project), no_scm=True) as repo:
        return {stage.addressing.rpartition(":")[2]: stage for stage in repo.index.stages}


@pytest.fixture(scope="module")
def loaded() -> dict[str, tuple[set[str], set[str], str]]:
    """By DVC's names of stages: the files of this project that each loads, the packages that they import, its help."""
    command = [sys.executable, "tests/stage_imports.py", json.dumps(STAGES)]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {_address(name, choice): (set(files), set(packages), text) for name, choice, files, packages, text in rows}


@pytest.fixture(scope="module")
def imported(loaded) -> dict[str, set[str]]:
    """The files of this project that each stage loads."""
    return {address: files for address, (files, *_) in loaded.items()}


def _address(name: str, choice: str | None) -> str:
    return f"{name}@{choice}" if choice else name


def _dependencies(stage: PipelineStage, *, of_code: bool) -> set[str]:
    paths = {each.def_path for each in stage.deps if not isinstance(each, ParamsDependency)}
    return {path for path in paths if path.startswith(("earshot/", "stages/")) == of_code}


def _is_in(file: str, folder: str) -> bool:
    return file == folder or file.startswith(f"{folder}/")


def test_dvc_runs_every_stage_and_no_other(resolved):
    assert sorted(resolved) == sorted(_address(*stage) for stage in STAGES)


@each_stage
def test_a_stage_declares_in_dvc_yaml_what_it_declares_in_its_script(project, resolved, name, choice):
    declared, stage = resolved[_address(name, choice)], importlib.import_module(f"stages.{name}").STAGE
    assert declared.cmd == f"python -m stages.{name}" + (f' --{stage.choices[0]} "$DVC_STAGE"' if choice else "")
    schema = stage.schema(choice)
    keys = {key for each in declared.deps if isinstance(each, ParamsDependency) for key in each.params}
    assert keys == set(declared_keys(schema))
    assert {out.def_path for out in declared.outs if out.use_cache} == set(stage.outs(choice))
    uncached = {out.def_path for out in declared.outs if not out.use_cache}
    assert uncached == {f"metrics/{file}" for file in stage.metric_files(choice)}
    assert all(out.metric or out.plot for out in declared.outs if not out.use_cache)
    assert all(writing_stage(Path("root") / out) == name for out in stage.outs(choice) if out != "report")
    params = load_params(schema, project / "params.yaml")
    assert _dependencies(declared, of_code=False) - {ABSENT} == set(stage.inputs(params, choice))


def test_a_network_of_correspond_may_describe_sounds_without_a_circle(tmp_path):
    folder = "folder: none "
    assert folder in PARAMS
    (tmp_path / "params.yaml").write_text(PARAMS.replace(folder, "folder: models/correspond "))
    for name in ("dvc.yaml", ABSENT):
        shutil.copy(REPOSITORY / name, tmp_path)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        graph = repo.index.graph  # raises CyclicGraphError
        names = {stage.addressing.rpartition(":")[2]: stage for stage in graph}
        assert names["correspond"] in graph[names["describe"]]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize(
    "key", ["voc", "$(touch x)/../voc", "`touch x`", "voc; touch x", "'; touch x; '", '"; touch x; "']
)
def test_no_key_of_params_yaml_reaches_the_shell(resolved, tmp_path, shell, name, key):
    """The command, run as DVC runs it, with a `python` that writes down its arguments."""
    program = tmp_path / "python"
    program.write_text(f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open('arguments', 'w'))\n")
    program.chmod(0o755)
    command = resolved[_address(name, CHOICES[name][0])].cmd
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "DVC_STAGE": f"{name}@{key}"}
    subprocess.run([shell, "-c", command], cwd=tmp_path, env=environment, check=True)
    assert json.loads((tmp_path / "arguments").read_text())[-1] == f"{name}@{key}"
    assert not (tmp_path / "x").exists()


def test_no_key_of_params_yaml_stands_in_a_command():
    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    assert not any("${" in each.get("do", each)["cmd"] for each in stages.values())


@pytest.mark.parametrize("text", ["voc", "evaluate@voc", "dvc.yaml:evaluate@voc", "../a@b/dvc.yaml:evaluate@voc"])
def test_the_name_of_dvcs_stage_selects_a_benchmark(text):
    assert importlib.import_module("stages.evaluate").STAGE._choice_of(text) == "voc"


@pytest.mark.parametrize("key", ["voc; touch x", "$(touch x)", "../voc", "explain@voc", "voc@evaluate"])
def test_an_unknown_name_is_refused(capsys, key):
    stage = importlib.import_module("stages.evaluate")
    with pytest.raises(SystemExit):
        stage.STAGE.run(stage.main, ["--benchmark", f"evaluate@{key}"])
    assert "invalid choice" in capsys.readouterr().err


@each_stage
def test_a_stage_declares_the_code_that_it_imports_and_no_other(resolved, imported, name, choice):
    address = _address(name, choice)
    assert address in imported, "it cannot be imported: the traceback is in the output"
    declared, files = _dependencies(resolved[address], of_code=True), imported[address] - {SPEED}
    if name == "download":
        assert not declared, "an edit would fetch again what was fetched"
        return
    exempt = COVERED_BY_DATA.get(choice or "", "-")
    uncovered = {file for file in files if not any(_is_in(file, folder) for folder in (*declared, exempt))}
    assert not uncovered, "an edit of them would not run the stage again"
    # For a list that all choices share, the imports of any of them.
    files = set().union(*(each for other, each in imported.items() if other.partition("@")[0] == name))
    needless = {folder for folder in declared if not any(_is_in(file, folder) for file in files)}
    assert not needless, "an edit of them would run the stage for nothing"


@pytest.mark.parametrize("package", SLOW)
def test_only_stages_that_use_a_slow_package_import_it_at_their_start(loaded, package):
    assert {address for address, (_, packages, _) in loaded.items() if package in packages} == SLOW[package]


@pytest.mark.parametrize("benchmark", CHOICES["evaluate"])
def test_a_benchmark_loads_no_other_one_and_one_kind_of_inputs(imported, benchmark):
    files = imported[f"evaluate@{benchmark}"]
    assert {file for file in files if _is_in(file, "earshot/benchmarks")} == {f"earshot/benchmarks/{benchmark}.py"}
    kinds = {match[1] for file in files if (match := re.match("earshot/evaluation/(images|recordings|clips)/", file))}
    assert len(kinds) <= 1


def test_each_choice_is_a_module_and_each_module_a_choice():
    for folder, name in (("benchmarks", "evaluate"), ("exhibits", "explain")):
        modules = {file.stem for file in (REPOSITORY / "earshot" / folder).glob("[!_]*.py")}
        assert modules == set(CHOICES[name])


@each_stage
def test_help_describes_the_stage(loaded, name, choice):
    *_, text = loaded[_address(name, choice)]
    for word in ("--params", "--set", "--root", "EARSHOT_WORKERS", f"python -m stages.{name}"):
        assert word in text
