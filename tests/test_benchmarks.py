"""What benchmarks have in common: how they are displayed, and the code that they depend on."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from dvc.repo import Repo

from earshot.benchmarks import voc
from earshot.core.registry import find_all, names
from earshot.core.yaml_files import read_yaml

BENCHMARKS = names("earshot.benchmarks")
# Lists by benchmark the files that stages.evaluate has loaded when it has imported the benchmark alone.
LOADED = """
import importlib, json, sys
found = {}
for name in sys.argv[1:]:
    for module in [each for each in sys.modules if each.partition(".")[0] in ("earshot", "stages")]:
        del sys.modules[module]
    importlib.import_module("stages.evaluate")
    importlib.import_module(f"earshot.benchmarks.{name}")
    found[name] = [m.__file__ for n, m in sys.modules.items() if n.partition(".")[0] in ("earshot", "stages")]
print(json.dumps(found))
"""
# Groups of benchmarks that params.yaml has no tree for.
MORE = {"dcase": "recordings", "imagenet": "images"}


@pytest.fixture(scope="module")
def loaded():
    """By benchmark the files of code that it has loaded, as dvc.yaml names them; packages' own are but docstrings."""
    command = [sys.executable, "-c", LOADED, *BENCHMARKS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    files = {name: {file for file in listed if file} for name, listed in json.loads(done.stdout).items()}
    return {
        name: {file.removeprefix(f"{REPOSITORY}/") for file in listed if not file.endswith("__init__.py")}
        for name, listed in files.items()
    }


@pytest.fixture(scope="module")
def declared(tmp_path_factory):
    """By benchmark the code among the dependencies of its stage, as DVC itself resolves them."""
    root = tmp_path_factory.mktemp("dvc")
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    values = read_yaml(REPOSITORY / "params.yaml")
    for name, inputs in MORE.items():
        values["evaluate"][name] = {"tree": name, "encoder": "models", "inputs": inputs, "annotations": "none"}
    (root / "params.yaml").write_text(json.dumps(values))  # which YAML includes
    stages = Repo(str(root), uninitialized=True).stage.load_all(str(root / "dvc.yaml"))
    found = {stage.name.removeprefix("evaluate@"): stage for stage in stages}
    code = re.compile("(earshot|stages)/")
    return {name: {dep.def_path for dep in found[name].deps if code.match(dep.def_path)} for name in BENCHMARKS}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_benchmark_depends_on_all_the_code_that_it_loads(benchmark, loaded, declared):
    free = {file for file in loaded[benchmark] if not any(_covers(name, file) for name in declared[benchmark])}
    assert not free
    assert f"earshot/benchmarks/{benchmark}.py" in declared[benchmark]


def test_no_code_is_a_dependency_that_no_benchmark_loads(loaded, declared):
    for name in set().union(*declared.values()):
        assert any(_covers(name, file) for listed in loaded.values() for file in listed), name


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_benchmarks_load_no_other_benchmark_no_sound_and_one_kind_of_inputs(benchmark, loaded, declared):
    others = {file for file in loaded[benchmark] if file.startswith(("earshot/benchmarks/", "earshot/sound/"))}
    assert others == {f"earshot/benchmarks/{benchmark}.py"}
    kinds = {file.split("/")[2] for file in loaded[benchmark] if re.match("earshot/evaluation/[^/]+/", file)}
    assert {name for name in kinds if f"earshot/evaluation/{name}" not in declared[benchmark]} == set()


def _covers(name: str, file: str) -> bool:
    return file == name or file.startswith(f"{name}/")


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_how_a_benchmark_is_displayed_is_told_as_json(benchmark):
    of = find_all("earshot.benchmarks", "BENCHMARK")[benchmark]
    described = json.loads(json.dumps(of.describe()))
    assert described["title"] == of.title and described["higher_is_better"] is True
    assert not of.leading or re.fullmatch(f"({of.scores})(?:_(.+))?", of.leading)
    assert all(prefix.endswith("_") for prefix in [*of.controls.values(), *of.alike.values()])
    assert set(of.own_beside) <= set(of.controls)


def test_voc_is_displayed_as_the_papers_have_it():
    described = voc.BENCHMARK.describe()
    assert {"params", "evaluate"}.isdisjoint(described)
    assert described["controls"] == {"wrong sound": "wrong_sound_", "random weights": "random_"}
    assert (described["scores"], described["leading"], described["metric"]) == ("map", "map_pool5", "mAP")
