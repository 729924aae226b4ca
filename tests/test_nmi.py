"""Normalized mutual information of clusters: by hand, for embeddings that know the classes, and at random."""

from types import SimpleNamespace

import numpy as np
import pytest
from annotated_scenes import TEST_GROUPS, Telling, write_annotated
from sklearn.metrics import normalized_mutual_info_score

from earshot.benchmarks import nmi
from earshot.benchmarks.nmi import cluster, evaluate, largest_share, random_clusters, resampled_nmi
from earshot.core.errors import EarshotError
from earshot.evaluation.benchmark import Context, NotApplicable
from earshot.evaluation.clips import annotated_moments as moments
from earshot.evaluation.significance import resampled_counts
from earshot.networks.backbones import build_network
from earshot.networks.files import save_architecture, save_weights


def test_clusters_are_those_of_the_embeddings():
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 3
    embeddings = np.eye(3)[classes] + 0.01 * rng.normal(size=(60, 3))
    labels = cluster(embeddings, 3, seed=0)
    assert len({(a, b) for a, b in zip(classes, labels, strict=True)}) == 3


def test_more_clusters_than_clips_are_refused():
    with pytest.raises(EarshotError, match="2 rows are too few for 3 clusters"):
        cluster(np.ones((2, 4)), 3, seed=0)


def test_random_clusters_score_as_theory_has_it():
    # For n clips, the bias of the mutual information of r classes and c clusters is (r - 1)(c - 1) / 2n nats.
    classes = np.arange(20_000) % 5
    expected = (5 - 1) * (8 - 1) / (2 * 20_000) / ((np.log(5) + np.log(8)) / 2)

    def score(count: int) -> float:
        drawn = random_clusters(8, count, seed=0)
        return float(np.mean([normalized_mutual_info_score(classes[:count], labels) for labels in drawn]))

    assert score(20_000) == pytest.approx(expected, rel=0.25)
    assert score(40) > 0.1  # few clips: high


def test_scores_in_resamples_are_those_of_the_repeated_clips():
    rng = np.random.default_rng(0)
    classes, labels = rng.integers(4, size=30), rng.integers(3, size=30)
    counts = resampled_counts(30, draws=20)
    drawn = resampled_nmi(classes, labels, counts)
    for count, score in zip(counts, drawn, strict=True):
        assert score == pytest.approx(normalized_mutual_info_score(np.repeat(classes, count), np.repeat(labels, count)))
    assert resampled_nmi(np.zeros(5, int), np.zeros(5, int), np.ones((1, 5), int)) == 1  # as scikit-learn has it


def test_the_largest_share_of_a_class_is_that_of_one_cluster():
    assert largest_share(np.array([2, 2, 0, 2])) == 0.75


def test_a_modality_that_predicts_the_class_scores_one_and_the_other_does_not(tmp_path, monkeypatch):
    kinds = [("surf", 40), ("rain", 120), ("bell", 220)]
    clips = 24
    annotations = [[kinds[number % 3][0], "fire"][: 1 + number % 2] for number in range(clips)]  # only the first counts
    grays = [kinds[number % 3][1] + number // 3 % 4 for number in range(clips)]
    levels = [0.02 * (1 + number // 3) for number in range(clips)]  # even among the classes
    write_annotated(tmp_path, grays, levels, annotations, TEST_GROUPS[:clips])
    networks = {"": Telling(), "random_": Telling(images={0: [0.5], 255: [0.7]})}
    monkeypatch.setattr(moments, "load_correspondences", lambda folder: networks)
    monkeypatch.setattr(nmi, "takes_audio", lambda folder: True)
    data, params = tmp_path / "data", SimpleNamespace(clusters=3, split="test")
    result = evaluate(Context(data / "scenes", tmp_path, params, 0, tmp_path, data / "annotations"))
    metrics = result.metrics
    assert metrics["nmi_image"] == pytest.approx(1)
    assert metrics["nmi_audio"] < 0.3
    assert metrics["random_nmi_image"] < 0.9
    assert 0 < metrics["chance"] < 0.4
    assert (metrics["clusters"], metrics["clips"]) == (3, clips)
    assert [(row["class"], row["clips"], row["share_image"]) for row in result.classes] == [
        ("bell", 8, 1.0), ("rain", 8, 1.0), ("surf", 8, 1.0),
    ]  # fmt: skip


def test_fewer_clips_than_clusters_give_no_result(tmp_path, monkeypatch):
    write_annotated(tmp_path, [10, 20], [0.1, 0.2], [["surf"], ["rain"]], TEST_GROUPS[:2])
    monkeypatch.setattr(moments, "load_correspondences", lambda folder: {"": Telling()})
    monkeypatch.setattr(nmi, "takes_audio", lambda folder: True)
    data, params = tmp_path / "data", SimpleNamespace(clusters=3, split="test")
    with pytest.raises(NotApplicable, match="2 annotated clips in the split test, expected one per cluster, 3 or more"):
        evaluate(Context(data / "scenes", tmp_path, params, 0, tmp_path, data / "annotations"))


def test_a_network_of_images_alone_has_the_score_of_images_alone(tmp_path):
    kinds = [("surf", 40), ("rain", 120), ("bell", 220)]
    clips = 12
    annotations = [[kinds[number % 3][0]] for number in range(clips)]
    grays = [kinds[number % 3][1] for number in range(clips)]
    write_annotated(tmp_path, grays, [0.1] * clips, annotations, TEST_GROUPS[:clips])
    network = build_network("alexnet", classes=3, width=0.1, image_size=64, dropout=0.0)
    save_architecture(tmp_path / "models", network)
    for name in ("encoder", "random"):
        save_weights(tmp_path / "models", name, network)
    data, params = tmp_path / "data", SimpleNamespace(clusters=3, split="test")
    result = evaluate(Context(data / "scenes", tmp_path / "models", params, 0, tmp_path, data / "annotations"))
    assert {key for key in result.metrics if "nmi" in key} == {"nmi_image", "random_nmi_image"}
    assert result.metrics["nmi_image"] == pytest.approx(1)  # each class has one gray
    assert result.scores.startswith("image 1.000 (random network 1.000); random clusters")
    assert set(result.classes[0]) == {"class", "clips", "share_image", "random_share_image"}
