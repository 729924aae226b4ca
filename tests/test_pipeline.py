"""dvc.yaml and the stage scripts say the same: parameters, inputs, outputs and the code that a stage imports."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from earshot.pipeline.params import load_params, read_yaml
from earshot.pipeline.stage import Stage

REPOSITORY = Path(__file__).parent.parent
# What some benchmarks read, and dvc.yaml, which has one list for all, declares for every one.
EVERY_BENCHMARK = {"data/annotations", "data/sample/ontology.json"}
DVC = read_yaml(REPOSITORY / "dvc.yaml")["stages"]
PARAMS = load_params(REPOSITORY / "params.yaml")
BENCHMARKS = list(read_yaml(REPOSITORY / "params.yaml")["evaluate"])
STAGES = [(name, None) for name in ("sample", "download", "extract", "describe", "label", "pretrain", "correspond")]
STAGES += [("evaluate", benchmark) for benchmark in BENCHMARKS]
STAGES += [("explain", exhibit) for exhibit in read_yaml(REPOSITORY / "params.yaml")["explain"]]
STAGES += [("report", None)]


def _declared(name: str, choice: str | None) -> dict:
    """The stage in dvc.yaml, its templates filled in, each list as plain names."""
    entry = DVC[name]["do"] if choice else DVC[name]
    values = {"${corpus.manifest}": PARAMS.corpus.manifest, "${corpus.clips}": PARAMS.corpus.clips}
    values |= {"${pretrain.weights}": PARAMS.pretrain.weights, "${correspond.weights}": PARAMS.correspond.weights}
    values |= {"${corpus.ontology}": PARAMS.corpus.ontology}
    values |= {"${corpus.select.ontology}": PARAMS.corpus.select.ontology}
    if choice:
        item = getattr(getattr(PARAMS, name), choice)
        values |= {"${key}": choice, "${item.tree}": item.tree, "${item.encoder}": item.encoder}

    def fill(item: str | dict) -> str:
        text = item if isinstance(item, str) else next(iter(item))
        for template, value in values.items():
            text = text.replace(template, value)
        return text

    lists = {key: [fill(item) for item in value] for key, value in entry.items() if isinstance(value, list)}
    return lists | {"cmd": fill(entry["cmd"])}


def _stage(name: str) -> Stage:
    return importlib.import_module(f"stages.{name}").STAGE


def _fill(names: list[str], choice: str | None) -> list[str]:
    return [name.replace("{choice}", choice or "") for name in names]


def test_dvc_runs_every_stage_and_no_other():
    assert list(DVC) == list(dict.fromkeys(name for name, _ in STAGES))


@pytest.mark.parametrize(("name", "choice"), STAGES, ids=lambda value: str(value))
def test_a_stage_declares_in_dvc_yaml_what_it_declares_in_its_script(name, choice):
    declared, stage = _declared(name, choice), _stage(name)
    assert declared["cmd"] == f"python -m stages.{name}" + (f" --{stage.choices[0]} {choice}" if choice else "")
    assert declared["params"] == _fill(stage.params, choice)
    assert declared.get("outs", []) == stage.outs(choice)
    metrics = declared.get("metrics", []) + declared.get("plots", [])
    assert sorted(metrics) == sorted(f"metrics/{file}" for file in stage.metric_files(choice))
    inputs = stage.inputs(stage.view(PARAMS, choice), choice)
    data = [path for path in declared["deps"] if not path.startswith(("stages/", "earshot/"))]
    needless = EVERY_BENCHMARK - set(inputs) if name == "evaluate" else set()
    assert set(data) - needless == set(inputs)


@pytest.mark.parametrize("name", list(DVC))
def test_a_stage_declares_the_code_that_it_imports(name):
    entry = DVC[name].get("do", DVC[name])
    declared = {path for path in entry["deps"] if path.startswith(("stages/", "earshot/"))}
    code = (
        f"import json, sys, stages.{name}; names = [m.split('.') for m in sys.modules];"
        "print(json.dumps(sorted({m[1] for m in names if m[0] == 'earshot' and len(m) > 1})))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert declared == {f"stages/{name}.py"} | {f"earshot/{folder}" for folder in json.loads(done.stdout)}


def test_imports_run_one_way():
    order = ["pipeline", "corpus", "media", "sound", "labels", "networks", "training", "evaluation", "exhibits"]
    order.append("insight")
    for depth, folder in enumerate(order):
        for file in (REPOSITORY / "earshot" / folder).rglob("*.py"):
            for later in order[depth + 1 :]:
                assert f"earshot.{later}" not in file.read_text(), f"{file} imports earshot.{later}"


@pytest.mark.parametrize("name", list(DVC))
def test_help_tells_what_a_stage_does(name):
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{name}", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    for word in ("--params", "--set", "--root", "EARSHOT_WORKERS", f"python -m stages.{name}"):
        assert word in done.stdout
