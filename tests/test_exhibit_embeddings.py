"""The exhibit of embeddings: what is apart stays apart, neighbours are counted by hand, and few points are enough."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from annotated_scenes import TEST_GROUPS, Telling, write_annotated
from PIL import Image

from earshot.exhibits import embeddings
from earshot.exhibits.embeddings import make, measure, measure_mixing, project
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.tables import SKIPPED, read_table
from earshot.networks.backbones import build_network
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture, save_weights

KINDS = {"surf": 40, "rain": 120, "bell": 220}
CLIPS = 24


@pytest.fixture
def world(tmp_path):
    """Clips of three kinds: pictures tell the kind, sounds are all but alike."""
    kinds = [list(KINDS)[number % 3] for number in range(CLIPS)]
    grays = [KINDS[kind] + number // 3 for number, kind in enumerate(kinds)]
    write_annotated(tmp_path, grays, [0.3] * CLIPS, [[kind] for kind in kinds], TEST_GROUPS[:CLIPS])
    return tmp_path


@pytest.fixture
def run_exhibit(world, monkeypatch):
    """What the exhibit shows: of networks that are given, or of those in the folder models."""

    def run(points=100, perplexity=30.0, networks=None):
        if networks:
            save_architecture(world / "models", build_correspondence("ave", width=1 / 16, image_size=32))
            monkeypatch.setattr(embeddings, "load_correspondences", lambda folder: networks)
        data, params = world / "data", SimpleNamespace(split="test", points=points, perplexity=perplexity)
        folders = {"data_dir": data / "scenes", "encoder": world / "models", "annotations": data / "annotations"}
        rest = dict.fromkeys(("scenes", "clips", "scratch"), world)
        how = {"params": params, "seed": 0, "window_s": 3.75}
        result = make(ExhibitContext(**folders, **rest, **how, folder=world / "result"))
        if SKIPPED in result.metadata:
            return result, [], []
        return result, *(list(read_table(world / "result", table)) for table in ("embeddings", "embedding_moments"))

    return run


def two_networks():
    """Pictures by kind, far apart; and a network by which all of them are all but one."""
    table = {gray + number: [gray, number / 8] for gray in KINDS.values() for number in range(8)}
    alike = {gray: [0.5, 0.5] for gray in (0, 255)}
    sounds = {0: [0.0, 1.0], 100: [1.0, 0.0]}
    return {"": Telling(table, sounds), "random_": Telling(alike, sounds)}


def test_what_is_apart_stays_apart_and_a_thumbnail_is_its_own(run_exhibit):
    result, rows, moments = run_exhibit(networks=two_networks())
    assert len(moments) == CLIPS and len(rows) == CLIPS * 2 * 2
    assert [row["clip_id"] for row in moments] == sorted(row["clip_id"] for row in moments)
    kinds = {row["clip_id"]: row["annotations"][0] for row in moments}
    for row in moments:
        image = Image.open(io.BytesIO(row["thumbnail"]))
        assert max(image.size) <= 64
        assert np.asarray(image).mean() == pytest.approx(KINDS[row["annotations"][0]] + 4, abs=6)
        assert row["moment"] == 1  # the frame nearest the middle
    points = [row for row in rows if (row["network"], row["modality"]) == ("encoder", "image")]
    places = np.array([[row["x"], row["y"]] for row in points])
    apart = np.linalg.norm(places[:, None] - places, axis=2) + 10 * np.eye(CLIPS)
    assert all(kinds[row["clip_id"]] == kinds[points[near]["clip_id"]] for row, near in zip(points, apart.argmin(1)))  # noqa: B905
    for network in ("encoder", "random"):
        for modality in ("image", "audio"):
            there = [(row["x"], row["y"]) for row in rows if (row["network"], row["modality"]) == (network, modality)]
            low, high = np.min(there, axis=0), np.max(there, axis=0)
            assert (low >= -1e-6).all() and (high <= 1 + 1e-6).all()
            assert (high - low).max() == pytest.approx(1, abs=1e-5)
    assert result.metadata["method"] == f"t-SNE from PCA, perplexity {(CLIPS - 1) / 3:g}"


def test_neighbors_share_an_annotation_where_the_network_tells_them(run_exhibit):
    metrics = run_exhibit(networks=two_networks())[0].metrics
    # Each clip has 7 of its kind among 23 of other videos; of the ten nearest these come first.
    assert metrics["chance"] == pytest.approx(7 / 23)
    assert metrics["knn_precision_image"] == pytest.approx(7 / 10)
    assert metrics["random_knn_precision_image"] == pytest.approx(7 / 23, abs=0.1)  # in no order: as at chance
    assert metrics["knn_precision_audio"] == pytest.approx(7 / 23, abs=0.1)
    assert (metrics["points"], metrics["annotated"], metrics["nearest"]) == (CLIPS, CLIPS, 10)


def test_clips_of_the_same_video_are_no_neighbors():
    points = [{"clip_id": f"c{n}", "group": group, "annotations": annotations} for n, (group, annotations) in enumerate(
        [("a", ["surf"]), ("a", ["surf"]), ("b", ["rain"]), ("c", ["surf", "rain"]), ("d", [])])]  # fmt: skip
    rows = np.array([[0.0, 0], [0.1, 0], [1, 0], [5, 0], [0, 0]])
    metrics, shares = measure(points, {"image": {"": rows}}, 0)
    # Of the annotated four the database of an "a" is b and c, of b three, of c three; two nearest for all.
    # a, a: b no, c yes; b: both a no; c: b yes, the nearer a yes.
    assert metrics["nearest"] == 2
    assert metrics["knn_precision_image"] == pytest.approx((1 + 1 + 0 + 2) / 8)
    assert metrics["chance"] == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1) / 4)


def test_where_nothing_was_said_nothing_is_measured(run_exhibit, world):
    write_annotated(world, [40, 60, 90, 120, 200, 250], [0.3] * 6, [[]] * 6, TEST_GROUPS[:6])
    result, rows, _ = run_exhibit(networks=two_networks())
    assert result.metrics == {"points": 6, "modality_mixing": 1, "random_modality_mixing": 1}  # ten of ten points
    assert len(rows) == 6 * 4


def test_points_are_a_draw_and_too_few_are_nothing(run_exhibit):
    _, _, moments = run_exhibit(points=10, networks=two_networks())
    _, _, more = run_exhibit(points=15, networks=two_networks())
    assert len(moments) == 10 and {row["clip_id"] for row in moments} < {row["clip_id"] for row in more}
    assert "has 4 clips" in run_exhibit(points=4, networks=two_networks())[0].metadata[SKIPPED]


@pytest.mark.parametrize("embeddings", [np.ones((20, 3)), np.arange(20.0)[:, None], np.outer(np.arange(20.0), [1, 2])])
def test_embeddings_that_all_but_coincide_have_places_too(embeddings):
    places = project(embeddings, 5, 0)
    assert np.isfinite(places).all() and places.min() >= -1e-6 and places.max() <= 1 + 1e-6


def test_shown_twice_it_is_the_same(run_exhibit, world):
    run_exhibit(networks=two_networks())
    first = (world / "result/embeddings.parquet").read_bytes()
    run_exhibit(networks=two_networks())
    assert (world / "result/embeddings.parquet").read_bytes() == first


def test_a_network_that_hears_nothing_embeds_images_alone(run_exhibit, world):
    network = build_network("alexnet", classes=3, width=0.1, image_size=64, dropout=0.0)
    save_architecture(world / "models", network)
    for name in ("encoder", "random"):
        save_weights(world / "models", name, network)
    result, rows, moments = run_exhibit()
    assert len(moments) == CLIPS
    assert {(row["network"], row["modality"]) for row in rows} == {("encoder", "image"), ("random", "image")}
    assert result.metrics["knn_precision_image"] == result.metrics["random_knn_precision_image"]
    assert result.metadata["modalities"] == "image"


def test_a_network_of_sequences_has_nothing_to_show(run_exhibit, world):
    architecture = {"name": "multisensory", "width": 0.1, "image_size": 32, "frames": 8, "audio_samples": 6000}
    save_architecture(world / "models", SimpleNamespace(architecture=architecture))
    assert "sequences" in run_exhibit()[0].metadata[SKIPPED]
    assert torch.is_inference_mode_enabled() is False


def test_modalities_that_lie_together_mix_and_those_apart_do_not():
    points = [{"clip_id": f"c{n}", "group": f"v{n}", "annotations": ()} for n in range(30)]
    rows = np.random.default_rng(0).normal(size=(30, 2))
    same, apart = {"image": {"": rows}, "audio": {"": rows}}, {"image": {"": rows}, "audio": {"": rows + 100}}
    # The two points of a clip are at one place: of the ten nearest from other videos, five are audio.
    assert measure_mixing(points, same, 0)["modality_mixing"] == pytest.approx(1)
    assert measure_mixing(points, apart, 0)["modality_mixing"] == 0
    flat = {modality: {"": np.zeros((30, 2))} for modality in ("image", "audio")}
    assert measure_mixing(points, flat, 0)["modality_mixing"] == pytest.approx(1, abs=0.4)  # ties are in random order
    assert measure_mixing(points, {"image": {"": rows}}, 0) == {}


def test_one_map_has_the_images_and_the_audio_of_a_network(run_exhibit, world):
    result, rows, _ = run_exhibit(networks=two_networks())
    joint = list(read_table(world / "result", "embeddings_joint"))
    assert len(joint) == 2 * 2 * CLIPS
    encoder = [row for row in joint if row["network"] == "encoder"]
    assert [row["modality"] for row in encoder] == ["image"] * CLIPS + ["audio"] * CLIPS
    assert [row["clip_id"] for row in encoder[:CLIPS]] == [row["clip_id"] for row in encoder[CLIPS:]]
    x = np.array([row["x"] for row in encoder])
    assert x.min() >= -1e-6 and x.max() <= 1 + 1e-6
    assert "modality_mixing" in result.metrics and "random_modality_mixing" in result.metrics
    assert all(row["knn_precision"] is not None for row in rows)
