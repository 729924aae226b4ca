"""The pipeline under DVC, in a repository of its own: only what changed runs again, and going back costs nothing."""

import json
import sys

import pytest
from conftest import committed
from repository import Repository, stages_run
from ruamel.yaml import YAML

EVERY_STAGE = ["sample", "download", "extract", "describe", "label", "pretrain", "correspond"]
OF_PAIRS = [f"evaluate@{name}" for name in ("correspondence", "retrieval", "nmi", "units", "localization")]
OF_IMAGES = ["evaluate@finetune", "evaluate@sun", "evaluate@voc"]
EXHIBITS = ("clusters", "units", "heatmaps", "localization", "embeddings", "retrieval")
EVERY_STAGE += [*OF_IMAGES, *OF_PAIRS, "evaluate@esc50", *(f"explain@{name}" for name in EXHIBITS), "report"]
OF_CLUSTERS = [*OF_IMAGES, "explain@clusters", "explain@units", "label", "pretrain", "report"]


def test_an_output_that_a_key_names_is_not_removed_by_dvc():
    """DVC removes the others before it runs a command, so that a key of params.yaml such as ../../data removed data."""
    stages = YAML(typ="safe").load(committed("dvc.yaml"))["stages"]
    for stage in (stages["evaluate"]["do"], stages["explain"]["do"]):
        for output in (*stage["outs"], *stage["metrics"], *stage.get("plots", ())):
            ((path, options),) = output.items()
            assert "${key}" in path and options["persist"]


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A repository in which `dvc repro extract` has run, and what it printed."""
    new = Repository(tmp_path_factory.mktemp("extracted"))
    return new, new.dvc("repro", "extract")


def test_repro_runs_what_a_stage_needs_once_and_then_nothing(extracted):
    repository, output = extracted
    assert stages_run(output) == ["sample", "download", "extract"]
    assert not stages_run(repository.dvc("repro", "extract"))


@pytest.mark.slow
def test_repro_runs_every_stage_once_and_then_nothing(repository, reproduced):
    assert sorted(stages_run((reproduced / "output").read_text())) == sorted(EVERY_STAGE)
    assert not stages_run(repository.dvc("repro"))
    assert json.loads(repository.dvc("status", "--json")) == {}
    assert repository.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_a_stage_that_runs_again_changes_no_metric(repository):
    again = repository.dvc("repro", "--force", "--single-item", "pretrain", "correspond")
    assert stages_run(again) == ["pretrain", "correspond"]
    assert repository.git("status", "--porcelain") == ""


@pytest.mark.slow
def test_an_edit_of_all_code_fetches_nothing_again(repository):
    for file in [*repository.folder.glob("earshot/**/*.py"), *repository.folder.glob("stages/*.py")]:
        file.write_bytes(file.read_bytes() + b"\n")
    changed = json.loads(repository.dvc("status", "--json"))
    repository.git("checkout", "--quiet", "earshot", "stages")
    assert sorted({*EVERY_STAGE} - changed.keys()) == ["download"]


@pytest.mark.slow
def test_every_benchmark_of_the_rendered_world_says_so(repository):
    for stage in (*OF_IMAGES, *OF_PAIRS, "evaluate@esc50"):
        assert repository.metrics(stage.partition("@")[2])["dataset"].startswith("rendered "), stage


@pytest.mark.slow
def test_a_file_of_weights_may_be_absent(repository):
    assert not stages_run(repository.dvc("exp", "run", "-S", "pretrain.weights=none"))


@pytest.mark.slow
def test_other_clusters_rerun_what_follows_and_going_back_restores(repository):
    before = repository.metrics("label"), repository.metrics("voc")
    output = repository.dvc("exp", "run", "--name", "five", "-S", "clusters=5")
    assert sorted(stages_run(output)) == sorted(OF_CLUSTERS)
    assert repository.metrics("pretrain")["chance"] == pytest.approx(1 / 5)
    back = repository.dvc("exp", "run", "-S", "clusters=4")
    assert not stages_run(back)
    assert (repository.metrics("label"), repository.metrics("voc")) == before


@pytest.mark.slow
def test_experiments_stand_side_by_side_with_their_exhibits_from_the_cache(repository):
    where = ["--root", str(repository.folder), "--output", str(repository.folder / "report-compare")]
    output = repository.run(sys.executable, "-m", "earshot", "compare", "HEAD", "--experiment", "five", *where)
    assert "not in DVC's cache" not in output and "2 runs" in output
    clusters = (repository.folder / "report-compare" / "clusters.html").read_text()
    assert "4 clusters of what is heard" in clusters and "5 clusters of what is heard" in clusters
    start = (repository.folder / "report-compare" / "index.html").read_text()
    assert ">clusters<" in start.partition("Changed parameters")[2]


@pytest.mark.slow
def test_plots_are_drawn_by_dvcs_own_templates(repository):
    displayed = json.loads(repository.dvc("plots", "diff", "--json", "HEAD", "five"))
    assert not displayed.get("errors")
    for name, plots in displayed["data"].items():
        assert {rev for plot in plots for rev in plot["revisions"]} == {"HEAD", "five"}, name
        values = [value for plot in plots for value in plot["content"]["data"]["values"]]
        assert values and {value["rev"] for value in values} == {"HEAD", "five"}, name
    points = displayed["data"]["VOC2007, mAP against clusters"][0]["content"]["data"]["values"]
    assert {point["clusters"] for point in points} == {"4", "5"}
    assert {"actual", "predicted"} <= displayed["data"]["ESC-50"][0]["content"]["data"]["values"][0].keys()


def test_an_unknown_parameter_runs_nothing(extracted):
    repository, _ = extracted
    with pytest.raises(AssertionError, match="clusterz"):
        repository.dvc("exp", "run", "-S", "clusterz=5")
