"""The stage explain on the tiny run: every exhibit, end to end."""

import json
from pathlib import Path

import pytest
from conftest import run_stage

from earshot.core.files import link_tree
from earshot.explanation.tables import METADATA_FILE, SKIPPED, read_table
from stages.explain import STAGE, main

TABLES = {
    "clusters": ["clusters", "cluster_moments"],
    "units": ["units", "unit_sweep", "unit_classes"],
    "heatmaps": ["heatmaps"],
    "localization": ["localized", "videos_with_sound"],
    "embeddings": ["embeddings", "embedding_moments"],
    "retrieval": ["retrieval_results", "retrieval_clips"],
}


# test_dvc.py runs every exhibit too.
pytestmark = [pytest.mark.usefixtures("one_process"), pytest.mark.slow]


@pytest.fixture(scope="module")
def root(tiny_root, tmp_path_factory) -> Path:
    """The tiny run up to correspond."""
    copy = tmp_path_factory.mktemp("explain") / "root"
    link_tree(tiny_root, copy)
    run_stage("correspond", copy)
    return copy


def explain(root, exhibit, *more):
    """The stage, in this process; it prints its closing line."""
    STAGE.run(main, ["--exhibit", exhibit, "--params", str(root / "params.yaml"), "--root", str(root), *more])


@pytest.mark.parametrize("exhibit", list(TABLES))
def test_an_exhibit_of_a_run_has_its_tables_metadata_and_metrics(root, exhibit, capsys):
    explain(root, exhibit)
    output = capsys.readouterr().out
    assert output.startswith(f"{exhibit}: ")
    folder = root / "data/explain" / exhibit
    metadata = json.loads((folder / METADATA_FILE).read_text())
    assert metadata["exhibit"] == exhibit and SKIPPED not in metadata
    for table in TABLES[exhibit]:
        assert list(read_table(folder, table))
    metrics = json.loads((root / f"metrics/explain_{exhibit}.json").read_text())
    assert metrics["clips_hash"] and len(metrics) > 2


def test_gradient_ascent_is_a_table_of_units(root):
    explain(root, "units", "--set", "explain.units.ascent_steps=2")
    assert list(read_table(root / "data/explain/units", "unit_ascent"))


def test_an_exhibit_of_a_network_that_cannot_be_shown_says_so_and_is_no_failure(root, capsys):
    explain(root, "retrieval", "--set", "explain.retrieval.encoder=models/pretrain")
    assert "skipped because alexnet is a network of the stage pretrain" in capsys.readouterr().out
    assert (root / "data/explain/retrieval" / METADATA_FILE).exists()
    assert not (root / "data/explain/retrieval/retrieval_results.parquet").exists()
