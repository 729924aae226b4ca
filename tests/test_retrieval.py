"""Retrieval: nDCG, its random order and the relevance of clips by hand, and the benchmark on a world of five clips."""

import itertools
import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from annotated_scenes import TEST_GROUPS, Telling, write_annotated
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from earshot.benchmarks import retrieval
from earshot.benchmarks.retrieval import best_gains, evaluate
from earshot.core.errors import EarshotError
from earshot.corpus.ontology import read_ontology
from earshot.evaluation.benchmark import Context, NotApplicable
from earshot.evaluation.clips import annotated_moments as moments
from earshot.evaluation.clips.ranking import clip_distances, rank

LOG = np.log2


def ndcg(gains: np.ndarray, database: np.ndarray, ranked: np.ndarray) -> np.ndarray:
    best = best_gains(gains, database, ranked.shape[1])
    return retrieval.ndcg(np.take_along_axis(gains, ranked, axis=1), best)


def random_ndcg(gains: np.ndarray, database: np.ndarray, k: int) -> np.ndarray:
    return retrieval.random_ndcg((gains * database).sum(1) / database.sum(1), best_gains(gains, database, k))


def everything(gains: np.ndarray) -> np.ndarray:
    return np.ones(gains.shape, bool)


def test_ndcg_by_hand():
    gains = np.array([[3.0, 0, 1, 2]])
    actual = ndcg(gains, everything(gains), np.array([[2, 0]]))  # gains 1 and 3; ideal 3 and 2
    assert actual == pytest.approx((1 + 3 / LOG(3)) / (3 + 2 / LOG(3)))
    exponential = ndcg(2**gains - 1, everything(gains), np.array([[2, 0]]))
    assert exponential == pytest.approx((1 + 7 / LOG(3)) / (7 + 3 / LOG(3)))


def test_both_gains_on_the_example_of_kims_code():
    """Relevances 3 2 3 0 1 2 in the order of their ranks, worked by hand with each gain."""
    gains, ranked = np.array([[3.0, 2, 3, 0, 1, 2]]), np.arange(6)[None]
    linear = 3 + 2 / LOG(3) + 3 / 2 + 0 + 1 / LOG(6) + 2 / LOG(7)
    ideal = 3 + 3 / LOG(3) + 2 / 2 + 2 / LOG(5) + 1 / LOG(6)
    assert ndcg(gains, everything(gains), ranked) == pytest.approx(linear / ideal) == pytest.approx(0.961, abs=5e-4)
    linear = 7 + 3 / LOG(3) + 7 / 2 + 0 + 1 / LOG(6) + 3 / LOG(7)
    ideal = 7 + 7 / LOG(3) + 3 / 2 + 3 / LOG(5) + 1 / LOG(6)
    assert ndcg(2**gains - 1, everything(gains), ranked) == pytest.approx(linear / ideal)


def test_what_a_query_may_not_find_is_no_part_of_its_ideal():
    gains, database = np.array([[3.0, 0, 1, 2]]), np.array([[False, True, True, True]])
    assert ndcg(gains, database, np.array([[3, 2]])) == pytest.approx(1)
    assert random_ndcg(gains, database, 1) == pytest.approx(1 / 2)  # mean gain 1, ideal 2


def test_a_query_to_which_nothing_is_relevant_scores_nothing():
    gains = np.zeros((1, 3))
    assert ndcg(gains, everything(gains), np.array([[0, 1]])) == random_ndcg(gains, everything(gains), 2) == 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 5), min_size=5, max_size=5), st.permutations(range(5)), st.integers(1, 5))
def test_ndcg_is_that_of_scikit_learn(gains, order, k):
    gains = np.array([gains], float)
    scores = np.empty((1, 5))
    scores[0, list(order)] = np.arange(5, 0, -1)
    expected = ndcg_score(gains, scores, k=k)
    assert ndcg(gains, everything(gains), np.array([order[:k]])) == pytest.approx(expected)


def test_random_order_is_the_mean_over_all_orders():
    gains = np.array([[4.0, 1, 0, 2]])
    of_orders = [ndcg(gains, everything(gains), np.array([order[:3]])) for order in itertools.permutations(range(4))]
    assert random_ndcg(gains, everything(gains), 3) == pytest.approx(np.mean(of_orders))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000))
def test_entries_are_ranked_by_distance_without_those_outside_the_database(seed):
    rng = np.random.default_rng(seed)
    queries, entries = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(9, 3)).astype(np.float32)
    database = rng.random((6, 9)) < 0.8
    database[:, :4] = True
    ranked = rank(queries, entries, database, 4)
    for query, row, actual in zip(queries, database, ranked, strict=True):
        allowed = sorted(np.flatnonzero(row), key=lambda place: np.linalg.norm(query - entries[place]))
        assert actual.tolist() == allowed[:4]


def test_an_embedding_that_is_no_number_is_refused():
    with pytest.raises(EarshotError, match="is not finite"):
        rank(np.array([[np.nan]]), np.ones((2, 1)), np.ones((1, 2), bool), 1)


@pytest.fixture
def ontology(tmp_path):
    """noise: surf, rain; music: guitar. C is 4: surf up to noise, on to the root, down to guitar."""
    data_dir = {"noise": ["surf", "rain"], "music": ["guitar"], "surf": [], "rain": [], "guitar": []}
    entries = [{"id": f"/{name}", "name": name, "child_ids": [f"/{child}" for child in below]}
               for name, below in data_dir.items()]  # fmt: skip
    file = tmp_path / "data/annotations/ontology.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(entries))
    return file


def test_clips_are_as_far_apart_as_their_nearest_annotations(ontology):
    apart = clip_distances(read_ontology(ontology), [["surf"], ["rain", "/guitar"], ["guitar"], ["noise", "surf"]])
    np.testing.assert_array_equal(list(apart), [[0, 2, 4, 0], [2, 0, 0, 1], [4, 0, 0, 3], [0, 1, 3, 0]])


# Four clips of four videos, and a second clip of the first video. All sounds are alike.
ANNOTATIONS = [["surf"], ["surf"], ["rain"], ["guitar"], ["surf"]]
GRAYS = [40, 60, 90, 200, 42]
LEVELS = [0.2, 0.2, 0.2, 0.2, 0.2]


@pytest.fixture
def run_benchmark(tmp_path, ontology, monkeypatch):
    """The result for a world of clips and networks by the prefixes of their metrics."""

    def run(k=2, annotations=ANNOTATIONS, groups=(0, 1, 2, 3, 0), networks=None):
        write_annotated(tmp_path, GRAYS, LEVELS, annotations, [TEST_GROUPS[number] for number in groups])
        networks = networks or {"": Telling(), "random_": Telling()}
        monkeypatch.setattr(moments, "load_correspondences", lambda folder: networks)
        params = SimpleNamespace(k=k, split="test")
        data = tmp_path / "data"
        return evaluate(Context(data / "scenes", tmp_path, params, 0, tmp_path, data / "annotations"))

    return run


def test_the_benchmark_of_five_clips_by_hand(run_benchmark):
    result = run_benchmark()
    metrics = result.metrics
    assert (metrics["C"], metrics["clips"], metrics["clips_left_out"]) == (4, 5, 0)
    # Gains: 4 for the same class, 2 for surf and rain, 0 for anything and guitar. The clips of the first video, grays
    # 40 and 42, find 60 and 90: surf and rain, which is ideal. 60 finds 42 and 40, 90 finds 60 and 42: ideal too. 200
    # finds only what is irrelevant.
    assert metrics["ndcg2_image_image"] == pytest.approx((1 + 1 + 1 + 1 + 0) / 5)
    discount = 1 + 1 / LOG(3)
    expected = [(4 + 2 + 0) / 3 * discount / (4 + 2 / LOG(3))] * 2  # the first video: 60, 90, 200
    expected += [(4 + 2 + 0 + 4) / 4 * discount / (4 * discount), (2 + 2 + 0 + 2) / 4 * discount / (2 * discount), 0]
    assert metrics["random_order_ndcg2"] == pytest.approx(np.mean(expected))
    assert metrics["ndcg2_image_image"] == metrics["random_ndcg2_image_image"]
    # With the query itself, which is nearest: 40 finds 40 and 42; 42 itself and 40; 60 itself and 42; 90 itself, a 4,
    # and 60, a 2; 200 itself and 90, a 4 and nothing, which is all that is relevant.
    assert metrics["with_query_ndcg2_image_image"] == pytest.approx(1)
    expected = [(4 + 4 + 4 + 2 + 0) / 5 * discount / (4 * discount)] * 3
    expected += [(2 + 2 + 2 + 4 + 0) / 5 * discount / (4 + 2 / LOG(3)), 4 / 5 * discount / 4]
    assert metrics["random_order_with_query_ndcg2"] == pytest.approx(np.mean(expected))
    assert metrics["with_query_exponential_ndcg2_image_image"] == pytest.approx(1)
    guitar = next(row for row in result.classes if row["class"] == "guitar")
    assert (guitar["clips"], guitar["ndcg2_image_image"]) == (1, 0)
    assert "nDCG@2" in result.protocol and "max(4 - d, 0)" in result.protocol


@pytest.fixture
def run_on_random_moments(tmp_path, ontology, monkeypatch):
    """The result for clips with random embeddings and annotations."""
    known = read_ontology(ontology)
    monkeypatch.setattr(retrieval, "read_ontology_of", lambda *_: known)

    def run(clips, k=5):
        rng = np.random.default_rng(0)
        rows = {prefix: rng.normal(size=(clips, 4)).astype(np.float32) for prefix in ("", "random_")}
        described = moments.AnnotatedMoments(
            clips=[f"clip_{number}" for number in range(clips)],
            groups=[f"video_{number // 2}" for number in range(clips)],
            annotations=[[name] for name in rng.choice(["surf", "rain", "guitar"], clips)],
            images=rows,
            sounds={prefix: values + 0.5 * values[::-1] for prefix, values in rows.items()},
            left_out=0,
        )
        monkeypatch.setattr(retrieval, "describe_moments", lambda *_: described)
        params = SimpleNamespace(k=k, split="test")
        return evaluate(Context(tmp_path, tmp_path, params, 0, tmp_path, ontology.parent))

    return run


@pytest.mark.parametrize("queries", [1, 7, 60])
def test_the_number_of_queries_at_a_time_changes_no_score(queries, run_on_random_moments, monkeypatch):
    expected = run_on_random_moments(60).metrics
    monkeypatch.setattr(retrieval, "QUERIES", queries)
    assert run_on_random_moments(60).metrics == expected


def test_no_table_of_all_pairs_of_clips_is_in_memory(run_on_random_moments, monkeypatch):
    monkeypatch.setattr(retrieval, "QUERIES", 32)
    tracemalloc.start()
    run_on_random_moments(1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 1000**2  # bytes of float64 for each pair


def test_an_uninformative_network_scores_about_random_order_and_a_perfect_one_scores_one(run_benchmark):
    classes = {40: [0.0], 60: [0.0], 42: [0.0], 90: [1.0], 200: [9.0]}
    knowing = Telling(images=classes)
    metrics = run_benchmark(k=1, networks={"": knowing, "random_": Telling()}).metrics
    assert metrics["ndcg1_image_image"] == pytest.approx(4 / 5)  # nothing is like the guitar
    assert metrics["exponential_ndcg1_image_image"] == pytest.approx(4 / 5)
    random_order, alike = metrics["random_order_exponential_ndcg1"], metrics["exponential_ndcg1_audio_audio"]
    assert 0 < random_order < 1
    assert alike < 1


def test_clips_without_annotations_are_counted_and_left_out(run_benchmark):
    annotations = [["surf"], ["surf"], ["rain"], ["guitar"], []]
    metrics = run_benchmark(annotations=annotations, groups=(0, 1, 2, 3, 4)).metrics
    assert (metrics["clips"], metrics["clips_left_out"]) == (4, 1)


def test_too_few_clips_of_other_videos_give_no_result(run_benchmark):
    with pytest.raises(NotApplicable, match="3 clips of other videos for a query, expected 4 or more"):
        run_benchmark(k=4)


@pytest.mark.parametrize(
    "annotations",
    [[["surf"]] * 5, [["surf", "rain"]] * 5, [["surf"], ["/surf"]] * 2 + [["surf"]],
     [["surf"]] * 3 + [["guitar", "surf"]] * 2],
)  # fmt: skip
def test_clips_that_are_all_equally_relevant_give_no_result(run_benchmark, annotations):
    with pytest.raises(NotApplicable, match="every clip is as relevant as any other, .* each order scores the same"):
        run_benchmark(annotations=annotations)


def test_one_clip_of_another_class_is_enough_for_a_result(run_benchmark):
    metrics = run_benchmark(annotations=[["surf"], ["surf"], ["surf"], ["rain"], ["surf"]]).metrics
    assert metrics["random_order_ndcg2"] < 1


def test_an_annotation_that_the_ontology_does_not_know_is_refused(run_benchmark):
    with pytest.raises(EarshotError, match="no class 'surfs'; the nearest is 'surf'"):
        run_benchmark(annotations=[["surfs"], *ANNOTATIONS[1:]])


def test_an_ontology_of_another_corpus_gives_no_result(run_benchmark):
    with pytest.raises(NotApplicable, match=r"none of the clips' annotations, such as '\w+', .* set corpus\.ontology"):
        run_benchmark(annotations=[["dog"], ["dog", "cat"], ["dog"], ["dog"], ["dog"]])


def test_clips_without_annotations_give_no_result(run_benchmark):
    with pytest.raises(NotApplicable, match="no clip of the split test is annotated"):
        run_benchmark(annotations=[[]] * 5)
