"""The exhibit of clusters: counts, nearest moments and purity by hand, of labels and distances that are planted."""

import io
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from annotated_scenes import TEST_GROUPS, write_annotated
from descriptions import OPTIONS, description
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.exhibits.clusters import PERMUTATIONS, ClusterCounts, Neighbor, draw_annotations, make
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.tables import SKIPPED, read_table
from earshot.labels.labeler import Labeler, save_labeler
from earshot.labels.models.binary import BinaryCode
from earshot.labels.models.clusters import ClusterCentroids
from earshot.labels.scaling import Scaling
from earshot.labels.table import LABELS, write_table
from earshot.sound.descriptors.texture import charts
from earshot.sound.texture import MODULATION_CENTERS, PAIRS, TextureOptions

SIZES = {"texture": 502, "mfcc": 3100, "spectrum": 32}
TRAINING_GROUPS = [name for name in (f"video_{number}" for number in range(20)) if split_of(name) == "train"]
A, B, C, D = *TRAINING_GROUPS[:3], TEST_GROUPS[0]
# Clips of three moments: two of the first video, and one of each other.
GROUPS = [A, A, B, C, D]
ANNOTATIONS = [["surf"], ["surf", "bird"], ["rain"], [], ["rain"]]
LABELED = [[0, 0, 1], [0, 0, 0], [0, -1, 1], [1, 1, 1], [0, 0, 0]]
DISTANCES = [[0.5, 0.3, 0.9], [0.2, 0.7, 0.8], [0.4, np.nan, 0.1], [0.6, 0.2, 0.3], [0.6, 0.45, 0.9]]


def write_labels(root, labels=LABELED, wrong=5):
    """data/labels under `root`, of two shards as the scenes have; the wrong sound's labels are one and the same."""
    names = [f"{group}_{number}" for number, group in enumerate(GROUPS)]
    rows = [(clip, moment) for clip in range(len(GROUPS)) for moment in range(3)]
    table = pa.table(
        [
            [names[clip] for clip, _ in rows],
            pa.array([moment for _, moment in rows], pa.int16()),
            [GROUPS[clip] for clip, _ in rows],
            [split_of(GROUPS[clip]) for clip, _ in rows],
            pa.array([labels[clip][moment] for clip, moment in rows], pa.int64()),
            [labels[clip][moment] >= 0 and moment != 2 for clip, moment in rows],
            pa.array([DISTANCES[clip][moment] for clip, moment in rows], pa.float32()),
            pa.array([labels[clip][moment] if wrong is None else wrong for clip, moment in rows], pa.int64()),
            [True] * len(rows),
        ],
        schema=LABELS,
    )
    for shard, part in enumerate((table[:9], table[9:])):
        write_table(root / f"data/labels/{shard:05d}.parquet", part)


def labeler(model="clusters", descriptor="texture", clusters=3):
    drawn, size = np.random.default_rng(0), SIZES.get(descriptor, 16)
    factor = drawn.uniform(0.1, 9, size).astype(np.float32)
    factor[::7] = 0
    scaling = Scaling(drawn.normal(size=size).astype(np.float32), factor)
    metadata = {"model": model, "descriptor": descriptor, "dimensions": size, "values": clusters}
    if model == "binary":
        code = BinaryCode(np.eye(3, size, dtype=np.float32), np.zeros(3, np.float32))
        return Labeler(scaling, code, metadata)
    return Labeler(scaling, ClusterCentroids(drawn.normal(size=(clusters, size)).astype(np.float32)), metadata)


@pytest.fixture
def run_exhibit(tmp_path):
    """What the exhibit shows of the planted labels: what is told, its clusters and its moments."""
    write_annotated(tmp_path, [40, 60, 90, 120, 200], [0.1, 0.2, 0.3, 0.4, 0.5], ANNOTATIONS, GROUPS)
    write_labels(tmp_path)

    def run(used_labeler=None, examples=2, audio_examples=1, split="train", **changes):
        used_labeler = used_labeler or labeler()
        save_labeler(tmp_path / "models/labeler", used_labeler)
        descriptor = used_labeler.metadata["descriptor"] if used_labeler.metadata["descriptor"] in SIZES else "texture"
        description(descriptor).save(tmp_path / "models/labeler", [])
        data = tmp_path / "data"
        values = {"data_dir": data / "labels", "encoder": tmp_path / "models/labeler", "seed": 0}
        values |= {
            "params": SimpleNamespace(split=split, examples=examples, audio_examples=audio_examples),
            "window_s": 3.75,
        }
        values |= {"scenes": data / "scenes", "annotations": data / "annotations", "folder": tmp_path / "result"}
        rest = dict.fromkeys(("clips", "scratch"), tmp_path)
        result = make(ExhibitContext(**values | rest | changes))
        if SKIPPED in result.metadata:
            return result, [], []
        return result, *(list(read_table(tmp_path / "result", name)) for name in ("clusters", "cluster_moments"))

    return run


def test_clusters_are_counted_and_told_by_their_most_frequent_annotations(run_exhibit):
    result, clusters, _ = run_exhibit()
    assert [row["moments"] for row in clusters] == [9, 5, 0]
    assert [row["trained_on"] for row in clusters] == [5, 2, 0]  # first and second moments of the training split
    assert [row["split_moments"] for row in clusters] == [6, 5, 0]  # without the three of the test clip
    assert [row["annotations"] for row in clusters] == [["surf", "bird", "rain"], ["rain", "surf"], []]
    np.testing.assert_allclose(clusters[0]["shares"], [5 / 6, 3 / 6, 1 / 6])
    np.testing.assert_allclose(clusters[1]["shares"], [1 / 5, 1 / 5])
    metrics = result.metrics
    assert (metrics["clusters"], metrics["empty_clusters"], metrics["moments"]) == (3, 1, 14)
    assert (metrics["smallest_share"], metrics["largest_share"]) == (0, 9 / 14)
    assert metrics["purity"] == pytest.approx((5 + 1) / (6 + 2))  # of the moments of annotated clips
    assert 0 < metrics["chance"] < 1
    assert metrics["test_purity"] == 1 and "val_purity" not in metrics  # one test clip, and no clip for validation
    assert result.metadata["silent"] == 1


def test_the_nearest_moments_are_one_a_group_and_the_nearest_first(run_exhibit):
    _, _, moments = run_exhibit()
    actual = [(row["cluster"], row["rank"], row["group"], row["moment"]) for row in moments]
    assert actual == [(0, 1, A, 0), (0, 2, B, 0), (1, 1, B, 2), (1, 2, C, 1)]
    np.testing.assert_allclose([row["distance"] for row in moments], [0.2, 0.4, 0.1, 0.2])
    assert moments[0]["clip_id"] == f"{A}_1" and moments[0]["annotations"] == ["surf", "bird"]
    assert moments[3]["annotations"] == []


def test_of_the_test_split_only_its_moments_are_displayed(run_exhibit):
    result, clusters, moments = run_exhibit(split="test", examples=9)
    assert [(row["cluster"], row["group"], row["moment"]) for row in moments] == [(0, D, 1)]  # one a group
    assert [row["moments"] for row in clusters] == [9, 5, 0] and [row["split_moments"] for row in clusters] == [3, 0, 0]
    assert [row["annotations"] for row in clusters] == [["rain"], [], []]
    assert result.metrics["purity"] == 1 and result.metrics["train_purity"] == pytest.approx(6 / 8)


def test_a_moment_is_shown_by_its_frame_its_cochleagram_and_where_heard_its_sound(run_exhibit):
    _, _, moments = run_exhibit()
    images = [np.asarray(Image.open(io.BytesIO(row["frame"])), float).mean() for row in moments]
    np.testing.assert_allclose(images, [0, 0, 0, 120], atol=1)  # of each clip the second frame has its grey
    for row in moments:
        assert Image.open(io.BytesIO(row["cochleagram"])).size == (200, 64)  # 2 s, which is all of a clip
    assert [bool(row["sound"]) for row in moments] == [True, False, True, False]
    assert [row["seconds"] for row in moments] == [2, 0, 2, 0]
    sound, rate = soundfile.read(io.BytesIO(moments[2]["sound"]))
    assert len(sound) / rate == pytest.approx(2, abs=0.01)
    levels = np.abs(sound).reshape(20, -1).max(1)  # in tenths of a second: sounding from .9 to 1.3 s
    assert levels[9:13].min() > 0.1 and levels[:8].max() < 0.05


def test_the_sound_is_that_around_the_moment(run_exhibit):
    _, _, moments = run_exhibit(window_s=1.5)
    begins = {0: 0.0, 2: 0.5}  # of the windows around .2 and 1.9 s of a clip that sounds from .9 to 1.3 s
    for row in moments[::2]:
        sound, _ = soundfile.read(io.BytesIO(row["sound"]))
        levels = np.abs(sound).reshape(15, -1).max(1) > 0.1
        first = round((0.9 - begins[row["moment"]]) * 10)
        assert np.flatnonzero(levels)[0] == first
        columns = np.asarray(Image.open(io.BytesIO(row["cochleagram"])).convert("RGB"), float).sum((0, 2))
        assert len(columns) == 150 and abs(columns.argmax() - 10 * first - 20) < 25


def test_chance_is_the_purity_of_annotations_drawn_at_random(run_exhibit):
    metrics = run_exhibit()[0].metrics
    names = [f"{group}_{number}" for number, group in enumerate(GROUPS)]
    frequent = Counter({("surf",): 1, ("bird", "surf"): 1, ("rain",): 2})
    drawn = {}
    for shard, part in enumerate((slice(0, 3), slice(3, 5))):
        drawn |= draw_annotations(dict(zip(names[part], ANNOTATIONS[part], strict=True)), frequent, [0, shard])
    purities = []
    for number in range(PERMUTATIONS):
        annotations = [[drawn[name][number] for name in names[:4] if name in drawn  # without the test clip
                 for label in LABELED[names.index(name)] if label == cluster] for cluster in (0, 1)]  # fmt: skip
        most = [max(Counter(word for each in sets for word in each).values()) for sets in annotations]
        purities.append(sum(most) / sum(map(len, annotations)))
    assert metrics["chance"] == pytest.approx(np.mean(purities))


def test_a_centroid_is_what_it_is_before_scaling(run_exhibit):
    own_labeler = labeler()
    _, clusters, _ = run_exhibit(own_labeler)
    centroids = np.array([row["centroid"] for row in clusters], np.float32)
    counts = own_labeler.scaling.factor != 0
    np.testing.assert_allclose(
        own_labeler.scaling.apply(centroids)[:, counts], own_labeler.model.centroids[:, counts], atol=1e-5
    )
    np.testing.assert_array_equal(centroids[:, ~counts], np.tile(own_labeler.scaling.center[~counts], (3, 1)))
    np.testing.assert_array_equal(clusters[1]["mean"], centroids[1, :32])
    np.testing.assert_array_equal(clusters[1]["modulation"], centroids[1, 181:501])


def test_correlations_stand_where_both_channels_meet_and_nowhere_else():
    texture = np.arange(502, dtype=np.float32)
    parts = charts(texture, TextureOptions(**OPTIONS))
    matrix = parts["correlation"].reshape(32, 32)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert np.isnan(matrix).sum() == 32 * 32 - 2 * len(PAIRS)
    for number, (below, above) in enumerate(PAIRS.tolist()):
        assert matrix[below, above] == 64 + number
    assert (parts["mean"][3], parts["spread"][3], parts["modulation"][11]) == (3, 35, 192)
    assert len(parts["frequencies"]) == 32 and np.all(np.diff(parts["frequencies"]) > 0)
    np.testing.assert_array_equal(parts["rates"], MODULATION_CENTERS)


OTHERS = [("clusters", "mfcc"), ("clusters", "spectrum"), ("textons", "textons")]


@pytest.mark.parametrize(("model", "descriptor"), OTHERS)
def test_a_centroid_of_another_descriptor_is_told_by_itself_alone(run_exhibit, model, descriptor):
    result, clusters, moments = run_exhibit(labeler(model, descriptor))
    assert len(clusters[0]["centroid"]) == SIZES.get(descriptor, 16)
    assert all(clusters[0][name] == [] for name in ("mean", "spread", "correlation", "modulation", "frequencies"))
    assert (result.metadata["labels"], result.metadata["descriptor"]) == (model, descriptor)
    assert result.metadata["clusters_of"] == ("what frames look like" if model == "textons" else "what is heard")
    assert len(moments) == 4


def test_codes_and_deranged_labels_have_nothing_to_show(run_exhibit, tmp_path):
    result, *_ = run_exhibit(labeler("binary"))
    assert "no centroid" in result.metadata[SKIPPED] and not result.metrics
    write_labels(tmp_path, wrong=None)
    assert "label.control" in run_exhibit()[0].metadata[SKIPPED]


def test_labels_of_another_labeler_are_refused(run_exhibit):
    with pytest.raises(EarshotError, match="has label 1, but .*labeler has 1 clusters"):
        run_exhibit(labeler(clusters=1))


def test_where_nothing_was_said_there_is_no_purity(run_exhibit, tmp_path):
    write_annotated(tmp_path, [40] * 5, [0.1] * 5, [[]] * 5, GROUPS)
    result, clusters, _ = run_exhibit()
    assert "purity" not in result.metrics and "chance" not in result.metrics
    assert clusters[0]["annotations"] == []


def test_chance_is_one_for_clusters_of_one_clip_each(run_exhibit, tmp_path):
    """However many moments a clip has: they would be alike whatever was dealt."""
    write_labels(tmp_path, [[clip] * 3 for clip in range(5)])
    metrics = run_exhibit(labeler(clusters=5))[0].metrics
    assert metrics["purity"] == metrics["chance"] == 1


def test_annotations_are_drawn_as_often_as_clips_have_them():
    annotations = {f"clip_{number}": [] for number in range(4000)}
    annotations |= {f"clip_{number}": ["a"] if number % 4 else ["b", "c"] for number in range(2000)}
    frequent = Counter({("a",): 1500, ("b", "c"): 500})
    drawn = draw_annotations(annotations, frequent, [0, 1])
    assert len(drawn) == 2000
    share = np.mean([each == ("a",) for row in drawn.values() for each in row])
    assert share == pytest.approx(0.75, abs=0.02)
    assert draw_annotations(annotations, frequent, [0, 1]) == drawn != draw_annotations(annotations, frequent, [0, 2])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=40), st.integers(1, 4))
def test_whatever_the_order_the_nearest_of_the_nearest_groups_are_kept(values, examples):
    moments = [Neighbor(distance / 10, f"clip_{n}", 0, f"{group}", ()) for n, (group, distance) in enumerate(values)]
    cluster = ClusterCounts()
    for moment in moments:
        cluster.add(moment, True, (), examples)
        assert len(cluster.nearest) <= examples
    best = [min(moment for moment in moments if moment.group == group) for group in {m.group for m in moments}]
    assert cluster.examples() == sorted(best)[:examples]


def test_shown_twice_it_is_the_same(run_exhibit, tmp_path):
    run_exhibit()
    first = {file.name: file.read_bytes() for file in (tmp_path / "result").iterdir()}
    run_exhibit()
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "result").iterdir()}
