"""Tests of docs/extending.md: its examples run, and each extension is one file, without changes elsewhere."""

import re

import pytest
from conftest import REPOSITORY
from repository import Repository, stages_run
from ruamel.yaml import YAML

PAGE = (REPOSITORY / "docs" / "extending.md").read_text()
SECTIONS = dict(re.findall(r"^## An? (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
yaml = YAML()


def follow(repository: Repository, section: str) -> None:
    """Run the commands of a section of the page, and put its parameters into params.yaml."""
    (commands,) = re.findall(r"^```sh\n(.*?)^```", SECTIONS[section], re.M | re.S)
    (changes,) = re.findall(r"^```yaml\n(.*?)^```", SECTIONS[section], re.M | re.S)
    repository.run("bash", "-e", "-c", commands)
    params = repository.folder / "params.yaml"
    values = yaml.load(params)
    merge(values, yaml.load(changes))
    yaml.dump(values, params)


def merge(values: dict, changes: dict) -> None:
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            merge(values[name], value)
        else:
            values[name] = value


@pytest.mark.slow
def test_a_file_is_all_that_a_thing_takes(repository):
    for thing in ("label model", "descriptor", "benchmark", "exhibit"):
        follow(repository, thing)
    run = stages_run(repository.dvc("repro"))
    assert {"describe", "label", "pretrain", "evaluate@nearest", "explain@frames", "report"} <= {*run}
    assert not {"sample", "download", "extract", "correspond", "evaluate@retrieval"} & {*run}
    assert repository.metrics("pretrain")["chance"] == 0.5  # of a bit
    assert 0 < repository.metrics("nearest")["map_pool5"] <= 1
    assert repository.metrics("explain_frames")["frames"] == 12
    scores = repository.run("python", "-m", "earshot", "scores")
    report = (repository.folder / "report" / "index.html").read_text()
    assert "endered nearest means" in report and "frames.html" in report
    assert scores


@pytest.mark.slow
def test_a_network_is_one_file_and_names_its_own_layers(repository):
    for thing in ("benchmark", "network"):
        follow(repository, thing)
    repository.dvc("repro", "evaluate@nearest")
    assert {"map_block2", "random_map_block4"} <= repository.metrics("nearest").keys()
    changed = repository.git("status", "--porcelain", "--untracked-files=all", "earshot", "stages", "dvc.yaml")
    assert "?? earshot/networks/backbones/vit.py" in changed.splitlines()
    assert all(line.startswith("?? ") for line in changed.splitlines())


def test_every_example_has_its_place_on_the_page():
    examples = {file.name for file in (REPOSITORY / "tests" / "examples").glob("*.py")}
    assert examples == set(re.findall(r"tests/examples/(\S+\.py)", PAGE))
