"""The pipeline under DVC, in a repository of its own: only what changed runs again, and going back costs nothing."""

import time

import pytest
from repository import Repository, stages_run

EVERY_STAGE = ["sample", "download", "extract", "describe", "label", "pretrain", "correspond"]
OF_PAIRS = [f"evaluate@{name}" for name in ("correspondence", "retrieval", "nmi", "units", "localisation")]
OF_PICTURES = ["evaluate@detection", "evaluate@finetune", "evaluate@sun", "evaluate@voc"]
OF_LABELS = ["explain@clusters", "explain@units", "report"]
EXHIBITS_OF_PAIRS = [f"explain@{name}" for name in ("heatmaps", "localisation", "embeddings", "retrieval")]
EVERY_STAGE += [*OF_PICTURES, *OF_PAIRS, "evaluate@esc50", *OF_LABELS, *EXHIBITS_OF_PAIRS]


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    made = Repository(tmp_path_factory.mktemp("dvc"))
    made.first_output = made.dvc("repro")
    made.commit()
    return made


def test_repro_runs_every_stage_once_and_then_nothing(repository):
    assert sorted(stages_run(repository.first_output)) == sorted(EVERY_STAGE)
    start = time.monotonic()
    again = repository.dvc("repro")
    assert not stages_run(again)
    assert time.monotonic() - start < 10  # 5 s where nothing else uses the machine
    assert repository.git("status", "--porcelain") == ""


def test_other_clusters_rerun_what_follows_and_going_back_restores(repository):
    before = repository.metrics("label"), repository.metrics("voc")
    output = repository.dvc("exp", "run", "-S", "clusters=5")
    assert sorted(stages_run(output)) == sorted([*OF_PICTURES, *OF_LABELS, "label", "pretrain"])
    assert repository.metrics("pretrain")["chance"] == pytest.approx(1 / 5)
    back = repository.dvc("exp", "run", "-S", "clusters=4")
    assert not stages_run(back)
    assert (repository.metrics("label"), repository.metrics("voc")) == before


def test_an_unknown_parameter_runs_nothing(repository):
    with pytest.raises(AssertionError, match="clusterz"):
        repository.dvc("exp", "run", "-S", "clusterz=5")
