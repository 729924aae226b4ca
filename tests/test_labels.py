"""Labels: scaling, k-means, the labeler and the wrong-sound control."""

import json
import tracemalloc
from pathlib import Path

import av
import faiss
import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earshot.core.errors import EarshotError
from earshot.corpus.wrong_sound import NOBODY, derange_sounds
from earshot.labels.kmeans import fit_kmeans, nearest_centroids
from earshot.labels.labeler import fit_labeler, load_labeler, save_labeler
from earshot.labels.model import Described
from earshot.labels.models import binary, clusters
from earshot.labels.models.binary import fit_binary, unpack
from earshot.labels.scaling import distance_shares, fit_scaling, mean_and_deviation
from earshot.labels.table import keep_near
from earshot.sound.texture import TEXTURE_GROUPS, sound_textures

TEXTURE, SPECTRUM = Described("texture", TEXTURE_GROUPS), Described("spectrum", {"spectrum": slice(0, 32)})
CLUSTERING = clusters.ClusterLabelParams(scale="z-score+sqrt", distance_filter=True, iterations=25, restarts=1)
FIT = {"model": "clusters", "values": 8, "options": CLUSTERING, "described": TEXTURE, "seed": 0}


def binary_fit(components: int, threshold: str) -> dict:
    """The arguments for fitting the model `binary`."""
    options = binary.BinaryLabelParams(components=components, threshold=threshold, scale="z-score+sqrt")
    return {"model": "binary", "values": components, "options": options, "seed": 0}


def sounds(rows: int, dimensions: int = 502, kinds: int = 8, seed: int = 0) -> np.ndarray:
    """Descriptors of `kinds` kinds of sound whose dimensions differ in mean and unit by orders of magnitude."""
    rng = np.random.default_rng(seed)
    unit = 10.0 ** rng.uniform(-3, 1, dimensions)
    centers = 1.5 * rng.standard_normal((kinds, dimensions))
    z = centers[rng.integers(kinds, size=rows)] + rng.standard_normal((rows, dimensions))
    return (unit * (z + 3)).astype(np.float32)


class Stream:
    """Rows that are generated again in every pass, 100 at a time, as a table is read again; counts the passes."""

    def __init__(self, blocks: int, dimensions: int) -> None:
        self.blocks, self.dimensions, self.passes = blocks, dimensions, 0

    def __iter__(self):
        self.passes += 1
        return (sounds(100, self.dimensions, seed=number) for number in range(self.blocks))


def scaled_and_shares(rows: np.ndarray, scale: str) -> tuple[np.ndarray, dict[str, float]]:
    """Textures scaled by a fit to themselves, and the shares of their parts in the squared distance."""
    parts = TEXTURE_GROUPS
    mean, deviation = mean_and_deviation([rows])
    scaling = fit_scaling(mean, deviation, scale, parts)
    return scaling.apply(rows), distance_shares(deviation, scaling, parts)


def real_textures(folder: Path) -> np.ndarray:
    """The texture in the middle of every clip of a folder that is long enough for one."""
    rows = []
    for path in sorted(folder.glob("*.mp4")):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
            rate = container.streams.audio[0].rate
        sound = np.concatenate([frame.mean(0) for frame in frames]).astype(np.float32).clip(-1, 1)
        start = max(len(sound) - int(3.75 * rate), 0) // 2
        window = sound[start : start + int(3.75 * rate)]
        if len(window) > 1.5 * rate:
            rows.append(sound_textures(window[None], rate)[0])
    return np.array(rows)


def inertia(rows: np.ndarray, centroids: np.ndarray) -> float:
    return float(nearest_centroids(rows, centroids)[1].sum(dtype=np.float64))


@pytest.fixture(autouse=True)
def one_thread():
    """Rows this few are clustered fastest in one thread."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    yield
    faiss.omp_set_num_threads(threads)


# Scaling


def test_z_scored_parts_have_equal_variance_and_the_papers_readings_divide_by_their_size():
    rows = sounds(500)
    parts = TEXTURE_GROUPS
    scaled = {scale: scaled_and_shares(rows, scale)[0] for scale in ("z-score+sqrt", "sqrt", "count", "none")}
    for part in parts.values():
        size = part.stop - part.start
        raw = rows[:, part].var(0, dtype=np.float64)
        np.testing.assert_allclose(scaled["z-score+sqrt"][:, part].var(0), 1 / size, rtol=1e-4)
        np.testing.assert_allclose(scaled["sqrt"][:, part].var(0), raw / size, rtol=1e-4)
        np.testing.assert_allclose(scaled["count"][:, part].var(0), raw / size**2, rtol=1e-4)
        np.testing.assert_allclose(scaled["none"][:, part].var(0), raw, rtol=1e-4)


def test_a_descriptor_other_than_the_texture_is_one_part():
    rows = sounds(200, 32)
    scaling = fit_scaling(*mean_and_deviation([rows]), "z-score+sqrt", SPECTRUM.parts)
    np.testing.assert_allclose(scaling.apply(rows).var(0), 1 / 32, rtol=1e-4)


def test_the_statistics_do_not_depend_on_how_rows_are_cut_into_blocks_nor_on_large_means():
    rows = sounds(301, 32) + np.float32(1000)
    exact = rows.astype(np.float64)
    for cut in ([rows], [rows[:1], rows[1:130], rows[130:]]):
        mean, deviation = mean_and_deviation(cut)
        np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-12)
        np.testing.assert_allclose(deviation, exact.std(0), rtol=1e-9)


def test_a_constant_dimension_counts_zero_and_does_no_harm():
    rows = sounds(100)
    rows[:50, 7], rows[50:, 7] = 0.1, np.nextafter(np.float32(0.1), np.float32(1))  # rounding, no sound
    scaled, _ = scaled_and_shares(rows, "z-score+sqrt")
    assert np.isfinite(scaled).all() and not scaled[:, 7].any()


@pytest.mark.parametrize("scale", ["z-score+sqrt", "sqrt", "count", "none"])
def test_scaling_can_be_undone_except_for_constant_dimensions(scale):
    rows = sounds(100)
    rows[:, 7] = 0.1
    mean, deviation = mean_and_deviation([rows])
    scaling = fit_scaling(mean, deviation, scale, TEXTURE_GROUPS)
    np.testing.assert_allclose(scaling.undo(scaling.apply(rows)), rows, atol=1e-5 * np.abs(rows).max())
    if scale == "z-score+sqrt":
        changed = scaling.apply(rows)
        changed[:, 7] = 5
        np.testing.assert_allclose(scaling.undo(changed)[:, 7], 0.1, rtol=1e-5)


@pytest.mark.parametrize("scale", ["z-score+sqrt", "sqrt", "count", "none"])
def test_shares_of_the_squared_distance_add_up_to_one_and_are_those_between_rows(scale):
    rows = sounds(100)
    scaled, shares = scaled_and_shares(rows, scale)
    assert list(shares) == ["moments", "correlation", "modulation", "energy"]
    assert sum(shares.values()) == pytest.approx(1)
    squares = np.square(scaled[:, None] - scaled).sum((0, 1), dtype=np.float64)  # (502,) over all pairs
    for name, part in TEXTURE_GROUPS.items():
        assert shares[name] == pytest.approx(squares[part].sum() / squares.sum(), rel=1e-4)


def test_on_real_clips_loudness_is_the_distance_unless_it_is_z_scored(real_data):
    rows = real_textures(real_data / "clips")
    by_count, by_root, z_scored = (scaled_and_shares(rows, s)[1] for s in ("count", "sqrt", "z-score+sqrt"))
    assert by_count["energy"] > 0.98
    assert 0.55 < by_root["energy"] < 0.75
    assert all(share == pytest.approx(0.25, abs=1e-3) for share in z_scored.values())


def test_a_texture_of_another_size_is_refused():
    with pytest.raises(EarshotError, match="501 dimensions, expected the 502 of texture"):
        fit_labeler([sounds(100, 501)], 100, memory_megabytes=100, **FIT)


# k-means


def test_kmeans_finds_clusters_that_are_there():
    rng = np.random.default_rng(0)
    centers = 20 * rng.standard_normal((6, 10)).astype(np.float32)
    kinds = rng.integers(6, size=900)
    rows = centers[kinds] + rng.standard_normal((900, 10), dtype=np.float32)
    centroids = fit_kmeans([rows], 6, rows=900, restarts=5)
    labels, _ = nearest_centroids(rows, centroids)
    assert len({(kind, label) for kind, label in zip(kinds, labels, strict=True)}) == 6


def test_kmeans_on_a_sample_and_full_passes_is_within_a_percent_of_lloyd_on_everything():
    from sklearn.cluster import KMeans

    rows = sounds(6000, 24, kinds=40) / 10.0 ** np.random.default_rng(0).uniform(-3, 1, 24).astype(np.float32)
    ours = np.mean([inertia(rows, fit_kmeans([rows], 8, rows=6000, seed=seed)) for seed in range(5)])
    lloyd = np.mean([KMeans(8, n_init=1, max_iter=25, random_state=seed).fit(rows).inertia_ for seed in range(5)])
    assert ours < 1.01 * lloyd


def test_full_passes_end_when_they_gain_little_and_beat_the_sample():
    stream = Stream(blocks=30, dimensions=40)
    rows = np.concatenate(list(stream))
    passes, inertias = [], []
    for iterations in (1, 40):
        stream.passes = 0
        inertias.append(inertia(rows, fit_kmeans(stream, 4, rows=3000, iterations=iterations)))
        passes.append(stream.passes)
    assert passes[0] == 2  # to draw the sample, and one over everything
    assert 2 < passes[1] < 41
    assert inertias[1] < inertias[0]


def test_kmeans_is_the_same_for_a_seed_and_for_any_number_of_threads():
    rows = sounds(3000, 64)
    one = fit_kmeans([rows], 8, rows=3000, seed=3)
    faiss.omp_set_num_threads(2)
    np.testing.assert_array_equal(fit_kmeans([rows], 8, rows=3000, seed=3), one)
    assert not np.array_equal(fit_kmeans([rows], 8, rows=3000, seed=4), one)


def test_more_clusters_than_different_rows_are_no_harm():
    rng = np.random.default_rng(0)
    few = np.repeat(rng.standard_normal((5, 8), dtype=np.float32), 40, axis=0)  # 5 points for 12 clusters
    centroids = fit_kmeans([few], 12, rows=200)
    assert np.isfinite(centroids).all()
    assert inertia(few, centroids) < 1e-2
    same = np.ones((50, 8), dtype=np.float32)
    assert np.isfinite(fit_kmeans([same], 3, rows=50)).all()


def test_fewer_rows_than_clusters_are_refused_with_both_numbers():
    with pytest.raises(EarshotError, match="4 rows are too few for 8 clusters"):
        fit_kmeans([sounds(4, 10)], 8, rows=4)


# The labeler


def test_a_table_larger_than_memory_gives_the_same_labeler_and_is_never_in_memory():
    stream = Stream(blocks=150, dimensions=502)  # 30 MB
    in_memory = fit_labeler(stream, 15_000, memory_megabytes=1000, **FIT)
    assert stream.passes == 2
    stream.passes = 0
    tracemalloc.start()
    streamed = fit_labeler(stream, 15_000, memory_megabytes=1, **FIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stream.passes > 4
    assert peak < 15_000_000  # the sample of 2,048 rows is 4 MB, and is in_memory twice while it is put together
    np.testing.assert_array_equal(streamed.model.centroids, in_memory.model.centroids)
    assert streamed.metadata == in_memory.metadata


def test_a_labeler_comes_back_from_disk_and_labels_new_sounds(tmp_path):
    labeler = fit_labeler([sounds(400)], 400, memory_megabytes=100, **FIT)
    save_labeler(tmp_path, labeler)
    loaded = load_labeler(tmp_path)
    new = sounds(50, seed=1)
    labels, distances = loaded.assign(new)
    assert labels.dtype == np.int64 and distances.dtype == np.float32
    np.testing.assert_array_equal(labels, labeler.assign(new)[0])
    all_distances = np.linalg.norm(loaded.scaling.apply(new)[:, None] - loaded.model.centroids, axis=2)
    np.testing.assert_array_equal(labels, all_distances.argmin(1))
    np.testing.assert_allclose(distances, all_distances.min(1), rtol=1e-3)


def test_a_damaged_labeler_and_sounds_of_another_size_are_refused(tmp_path):
    labeler = fit_labeler([sounds(100)], 100, memory_megabytes=100, **FIT)
    with pytest.raises(EarshotError, match=r"\(5, 32\); this labeler expects \(moments, 502\)"):
        labeler.assign(sounds(5, 32))
    with pytest.raises(EarshotError, match="not finite"):
        labeler.assign(np.full((1, 502), np.nan, dtype=np.float32))
    save_labeler(tmp_path, labeler)
    metadata = json.loads((tmp_path / "labeler.json").read_text())
    (tmp_path / "labeler.json").write_text(json.dumps(metadata | {"values": 9}))
    with pytest.raises(EarshotError, match="centroids is float32"):
        load_labeler(tmp_path)
    (tmp_path / "labeler.safetensors").write_bytes(b"not tensors")
    with pytest.raises(EarshotError, match="not a whole safetensors file"):
        load_labeler(tmp_path)
    (tmp_path / "labeler.json").write_text("[]")
    with pytest.raises(EarshotError, match=r"holds \[\], expected an object"):
        load_labeler(tmp_path)


# Binary codes


def correlated(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian rows of 40 dimensions and, as rows, the directions in which they vary, by falling variance."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.standard_normal((40, 40)))[0].T
    deviations = 0.8 ** np.arange(40)
    return ((rng.standard_normal((rows, 40)) * deviations) @ directions).astype(np.float32), directions


def test_components_are_the_directions_of_largest_variance_with_a_stated_sign():
    rows, directions = correlated(20_000)
    code = fit_binary([rows[:7000], rows[7000:]], 20_000, components=5, threshold="zero")
    np.testing.assert_allclose(np.abs((code.components * directions[:5]).sum(1)), 1, atol=0.01)
    largest = np.abs(code.components).argmax(1)
    assert (code.components[np.arange(5), largest] > 0).all()
    assert not code.thresholds.any()


def test_bit_i_of_a_code_is_one_if_projection_i_is_above_its_threshold():
    rows, _ = correlated(500)
    code = fit_binary([rows], 500, components=40, threshold="zero")
    codes, distances = code.assign(rows)
    assert codes.dtype == np.int64 and codes.min() >= 0 and codes.max() < 2**40
    for bit in range(40):
        np.testing.assert_array_equal((codes >> bit) & 1, rows @ code.components[bit] > 0)
    np.testing.assert_array_equal(unpack(codes, 40), rows @ code.components.T > 0)
    assert distances.dtype == np.float32 and np.isnan(distances).all()


def test_with_62_components_a_code_is_still_no_negative_number():
    rows = np.random.default_rng(0).standard_normal((200, 64), dtype=np.float32)
    code = fit_binary([rows], 200, components=62, threshold="zero")
    codes, _ = code.assign(np.concatenate([code.components.sum(0)[None], -code.components.sum(0)[None]]))
    assert codes.tolist() == [2**62 - 1, 0]


def test_above_the_median_is_half_of_the_training_rows_and_above_zero_is_not():
    rows = np.exp(np.random.default_rng(0).standard_normal((1000, 12), dtype=np.float32)) * np.arange(1, 13)  # skewed
    rows = (rows - rows.mean(0)).astype(np.float32)
    codes = [fit_binary([rows], 1000, components=8, threshold=t).assign(rows)[0] for t in ("median", "zero")]
    halves = [unpack(code, 8) for code in codes]
    np.testing.assert_allclose(halves[0].mean(0), 0.5, atol=0.001)
    assert np.abs(halves[1].mean(0) - 0.5).max() > 0.05


@pytest.mark.parametrize("threshold", ["zero", "median"])
def test_neither_memory_nor_the_order_of_blocks_changes_a_code(threshold):
    stream = Stream(blocks=10, dimensions=32)
    options = binary_fit(6, threshold) | {"described": SPECTRUM}
    in_memory = fit_labeler(stream, 1000, memory_megabytes=1000, **options)
    streamed = fit_labeler(stream, 1000, memory_megabytes=1e-9, **options)
    backwards = fit_labeler(list(stream)[::-1], 1000, memory_megabytes=1000, **options)
    np.testing.assert_array_equal(streamed.model.components, in_memory.model.components)
    np.testing.assert_array_equal(streamed.model.thresholds, in_memory.model.thresholds)
    np.testing.assert_allclose(backwards.model.components, in_memory.model.components, atol=1e-5)
    np.testing.assert_allclose(backwards.model.thresholds, in_memory.model.thresholds, atol=1e-5)


def test_a_binary_labeler_comes_back_from_disk_and_a_damaged_one_is_refused(tmp_path):
    labeler = fit_labeler([sounds(200)], 200, memory_megabytes=100, described=TEXTURE, **binary_fit(10, "median"))
    save_labeler(tmp_path, labeler)
    loaded, new = load_labeler(tmp_path), sounds(30, seed=1)
    assert loaded.metadata == labeler.metadata and loaded.kind == "bits"
    np.testing.assert_array_equal(loaded.assign(new)[0], labeler.assign(new)[0])
    metadata = json.loads((tmp_path / "labeler.json").read_text())
    for change, message in (
        ({"values": 9}, r"components is float32 \(10, 502\)"),
        ({"values": "ten"}, "values is 'ten', expected an integer"),
        ({"model": "clusters"}, "has no tensor centroids"),
        ({"model": "codes"}, r"holds no labeler of a known model \(binary, clusters, textons\)"),
    ):
        (tmp_path / "labeler.json").write_text(json.dumps(metadata | change))
        with pytest.raises(EarshotError, match=message):
            load_labeler(tmp_path)


def test_more_components_than_rows_dimensions_or_directions_are_refused():
    rows, _ = correlated(30)
    for block, components, message in (
        (rows, 31, "30 rows are too few for 31 components"),
        (correlated(100)[0], 41, "descriptors of 40 dimensions, label.components is 41"),
        (rows - rows.mean(0), 30, "vary in 29 directions, label.components is 30"),
    ):
        with pytest.raises(EarshotError, match=message):
            fit_binary([block], len(block), components=components, threshold="zero")


# The distance filter


def test_the_filter_keeps_the_nearer_half_of_training_and_all_of_the_rest():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 1000)
    distances = np.where(labels < 0, np.nan, rng.random(1000) * (labels + 1))  # clusters of different width
    training = rng.random(1000) < 0.8
    kept = keep_near(labels, distances, training, True)
    audible = labels >= 0
    assert not kept[~audible].any()
    assert kept[audible & ~training].all()
    assert abs(kept[training].sum() - (audible & training).sum() / 2) <= 1
    assert distances[kept & training].max() <= distances[audible & training & ~kept].min()
    np.testing.assert_array_equal(keep_near(labels, distances, training, False), audible)


# The wrong-sound control


@st.composite
def splits_of_clips(draw, even: bool):
    """Groups of 1-4 clips, clips of 1-3 moments (or all of the same), in groups' random order: (groups, clips)."""
    counts = draw(st.lists(st.integers(1, 4), min_size=2, max_size=12))
    groups = draw(st.permutations(np.repeat(np.arange(len(counts)), counts).tolist()))
    sizes = [draw(st.integers(1, 3))] * len(groups)
    if not even:
        sizes = draw(st.lists(st.integers(1, 3), min_size=len(groups), max_size=len(groups)))
    return np.repeat(groups, sizes), np.repeat(np.arange(len(groups)), sizes)


def largest_share(groups: np.ndarray, clips: np.ndarray) -> float:
    return np.bincount(groups[np.unique(clips, return_index=True)[1]]).max() / len(np.unique(clips))


@pytest.mark.filterwarnings("ignore:split train")
@hypothesis.settings(max_examples=200, deadline=None)
@given(splits_of_clips(even=False), st.integers(0, 2**32 - 1))
def test_nobody_gets_a_sound_of_their_own_group_and_clips_are_permuted_as_a_whole(split, seed):
    groups, clips = split
    source = derange_sounds(np.zeros(len(groups), dtype=int), ["train"], groups, clips, seed)
    assert (groups[source] != groups).all()
    given_clips = []
    for clip in np.unique(clips):
        given = source[clips == clip]
        from_clip = np.flatnonzero(clips == clips[given[0]])
        np.testing.assert_array_equal(given, np.resize(from_clip, len(given)))
        given_clips.append(clips[given[0]])
    if largest_share(groups, clips) <= 0.5:
        assert sorted(given_clips) == sorted(set(clips))


@pytest.mark.filterwarnings("ignore:split train")
@hypothesis.settings(max_examples=200, deadline=None)
@given(splits_of_clips(even=True), st.integers(0, 2**32 - 1))
def test_clips_of_one_size_give_a_permutation_of_moments(split, seed):
    groups, clips = split
    source = derange_sounds(np.zeros(len(groups), dtype=int), ["train"], groups, clips, seed)
    if largest_share(groups, clips) <= 0.5:
        np.testing.assert_array_equal(np.sort(source), np.arange(len(groups)))


def test_a_clip_of_another_size_does_not_spoil_the_permutation_of_the_others():
    sizes = np.array([3] * 40 + [2])
    clips = np.repeat(np.arange(41), sizes)
    source = derange_sounds(np.zeros(len(clips), dtype=int), ["train"], clips, clips, 0)
    assert len(np.unique(source)) >= len(clips) - 1
    assert (clips[source] != clips).all()


def test_the_permutation_stays_within_a_split_and_follows_the_seed():
    clips = np.repeat(np.arange(100), 3)
    groups, splits = clips // 2, (clips // 2) % 3
    source = derange_sounds(splits, ["train", "val", "test"], groups, clips, 5)
    np.testing.assert_array_equal(splits[source], splits)
    np.testing.assert_array_equal(source, derange_sounds(splits, ["train", "val", "test"], groups, clips, 5))
    assert (source != derange_sounds(splits, ["train", "val", "test"], groups, clips, 6)).any()


def test_a_group_with_over_half_of_the_clips_gets_sounds_drawn_from_the_others_with_a_warning():
    groups = np.array([0] * 60 + [1, 1, 2])
    with pytest.warns(UserWarning, match="split val: one group has over half"):
        source = derange_sounds(np.zeros(63, dtype=int), ["val"], groups, np.arange(63), 0)
    assert (groups[source] != groups).all()
    assert set(source[:60]) == {60, 61, 62}
    assert len(set(source[60:])) > 1


def test_a_split_of_one_group_gets_nobodys_sounds_with_a_warning():
    with pytest.warns(UserWarning, match="split test: all clips are of one group"):
        source = derange_sounds(np.zeros(4, dtype=int), ["test"], np.zeros(4, dtype=int), np.arange(4), 0)
    assert (source == NOBODY).all()
