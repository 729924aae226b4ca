"""What benchmarks have in common: how they are displayed, and that one is one file and its parameters."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import REPOSITORY
from striped_pictures import draw_picture

from earshot.benchmarks import voc
from earshot.core.registry import find_all, names
from earshot.networks.backbones import build_network
from earshot.networks.files import save_architecture, save_weights

BENCHMARKS = names("earshot.benchmarks")


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


def test_a_benchmark_is_one_file_and_its_group_of_parameters(tmp_path):
    for name in ("earshot", "stages"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "tests/examples/benchmark.py", tmp_path / "earshot/benchmarks/neighbors.py")
    for kind in range(2):
        for number in range(4):
            draw_picture(tmp_path / f"tree/{kind}/{kind}{number}.jpg", {kind}, number)
    torch.manual_seed(0)
    network = build_network("alexnet", classes=2, width=0.1, image_size=64, dropout=0.2)
    save_architecture(tmp_path / "encoders", network)
    for name in ("encoder", "random"):
        save_weights(tmp_path / "encoders", name, network)
    group = {"tree": "tree", "encoder": "encoders", "inputs": "images", "annotations": "none"}
    values = {"seed": 0, "evaluate": {"neighbors": group | {"layer": "pool5", "resize": 72}}}
    (tmp_path / "params.yaml").write_text(json.dumps(values))
    command = [sys.executable, "-m", "stages.evaluate", "--benchmark", "neighbors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nearest neighbor, accuracy: ")
    metrics = json.loads((tmp_path / "metrics/neighbors.json").read_text())
    assert metrics["accuracy"] == metrics["random_accuracy"] >= metrics["chance"] == 0.5
    described = json.loads((tmp_path / "data/told/neighbors/benchmark.json").read_text())
    assert described["title"] == "Nearest neighbors"
