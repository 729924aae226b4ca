"""The exhibit of retrieval: order and gains of a world of five clips by hand."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from annotated_scenes import TEST_GROUPS, Telling, write_annotated
from PIL import Image
from test_retrieval import ANNOTATIONS, GRAYS, ontology  # noqa: F401  the fixture

from earshot.core.errors import EarshotError
from earshot.exhibits import retrieval
from earshot.exhibits.retrieval import make
from earshot.explanation.exhibit import ExhibitContext
from earshot.explanation.tables import SKIPPED, read_table
from earshot.networks.correspondence import build_correspondence
from earshot.networks.files import save_architecture

GROUPS = [TEST_GROUPS[number] for number in (0, 1, 2, 3, 0)]  # a second clip of the first video
CLIPS = [f"{group}_{number}" for number, group in enumerate(GROUPS)]
LEVELS = [0.1, 0.9, 0.3, 0.5, 0.2]


@pytest.fixture
def run_exhibit(tmp_path, ontology, monkeypatch):  # noqa: F811
    """What the exhibit shows of five clips; a random network to which everything is one."""

    def run(queries=5, results=2, annotations=ANNOTATIONS, groups=GROUPS, split="test"):
        write_annotated(tmp_path, GRAYS[: len(annotations)], LEVELS[: len(annotations)], annotations, groups)
        save_architecture(tmp_path / "models", build_correspondence("ave", width=1 / 16, image_size=32))
        networks = {"": Telling(), "random_": Telling({0: [1.0]}, {0: [1.0]})}
        monkeypatch.setattr(retrieval, "load_correspondences", lambda folder: networks)
        data, params = tmp_path / "data", SimpleNamespace(split=split, queries=queries, results=results)
        folders = {"data_dir": data / "scenes", "encoder": tmp_path / "models", "annotations": data / "annotations"}
        rest = dict.fromkeys(("scenes", "clips", "scratch"), tmp_path)
        how = {"params": params, "seed": 0, "window_s": 3.75}
        result = make(ExhibitContext(**folders, **rest, **how, folder=tmp_path / "result"))
        if SKIPPED in result.metadata:
            return result, [], []
        return result, *(
            list(read_table(tmp_path / "result", table)) for table in ("retrieval_results", "retrieval_clips")
        )

    return run


def results_of(rows, direction, network="encoder"):
    """By the number of the query the numbers of its results, in order, and their gains."""
    results = {}
    for row in rows:
        if (row["direction"], row["network"]) == (direction, network):
            numbers, gains = results.setdefault(CLIPS.index(row["query"]), ([], []))
            assert row["rank"] == len(numbers) + 1
            numbers.append(CLIPS.index(row["result"]))
            gains.append(row["gain"])
    return results


def test_results_are_the_nearest_of_other_videos_in_all_directions(run_exhibit):
    result, rows, _ = run_exhibit()
    # Greys 40, 60, 90, 200, 42; of surf, surf, rain, guitar, surf; C is 4: rain is 2 steps from surf, guitar 4.
    images = results_of(rows, "image-to-image")
    assert images[0] == ([1, 2], [1, 0.5])
    assert images[4] == ([1, 2], [1, 0.5])
    assert images[1] == ([4, 0], [1, 1])
    assert images[2] == ([1, 4], [0.5, 0.5])
    assert images[3] == ([2, 1], [0, 0])
    # Levels .1, .9, .3, .5, .2; a picture is asked for by its grey, of 255: .16, .24, .35, .78, .16.
    assert results_of(rows, "audio-to-audio")[1][0] == [3, 2]
    assert results_of(rows, "image-to-audio")[1][0] == [4, 2]
    assert results_of(rows, "image-to-audio")[3][0] == [1, 2]
    assert results_of(rows, "audio-to-image")[1][0] == [3, 2]
    assert result.metrics == {"queries": 5, "clips": 5, "clips_displayed": 5, "C": 4}


def test_rows_are_by_network_direction_query_and_rank(run_exhibit):
    _, rows, _ = run_exhibit(queries=3)
    assert len(rows) == 2 * 4 * 3 * 2
    assert [row["network"] for row in rows] == ["encoder"] * 24 + ["random"] * 24
    directions = ["image-to-audio", "audio-to-image", "image-to-image", "audio-to-audio"]
    assert [row["direction"] for row in rows[::6]] == directions * 2
    queries = [row["query"] for row in rows[:6:2]]
    assert [row["query"] for row in rows[::2]] == queries * 8
    assert {tuple(ANNOTATIONS[CLIPS.index(clip)]) for clip in queries} == {("surf",), ("rain",), ("guitar",)}


def test_a_clip_is_shown_by_the_moment_that_was_embedded(run_exhibit):
    _, rows, clips = run_exhibit(queries=1, results=1)
    assert {row["clip_id"] for row in clips} == {row[role] for row in rows for role in ("query", "result")}
    for row in clips:
        number = CLIPS.index(row["clip_id"])
        assert (row["group"], row["annotations"]) == (GROUPS[number], ANNOTATIONS[number])
        assert np.asarray(Image.open(io.BytesIO(row["frame"]))).mean() == pytest.approx(GRAYS[number], abs=1)
        sound, rate = soundfile.read(io.BytesIO(row["sound"]))
        assert len(sound) / rate == pytest.approx(1, abs=0.01)
        light = np.asarray(Image.open(io.BytesIO(row["spectrogram"])).convert("RGB"), float).sum(2)
        assert light.shape == (257, 199)
        # Sounding from .9 to 1.3 s of the clip: in the middle of the second around 1.1 s, and nowhere else.
        assert light[-1, 70:130].min() > 600 and light[-1, :50].max() < 50 and light[-1, 150:].max() < 50
        assert light[:100, 70:130].max() < 600  # a level that does not change is low


def test_fewer_results_than_asked_for_are_shown_where_there_are_no_more(run_exhibit):
    _, rows, _ = run_exhibit(results=9)
    assert {row["rank"] for row in rows} == {1, 2, 3}  # the first video's clips have but three others


def test_clips_of_one_video_or_of_which_nothing_was_said_are_nothing(run_exhibit):
    assert "fewer than two videos" in run_exhibit(annotations=[[]] * 5)[0].metadata[SKIPPED]
    assert (
        "fewer than two videos" in run_exhibit(annotations=ANNOTATIONS[:2], groups=GROUPS[:1] * 2)[0].metadata[SKIPPED]
    )


def test_an_annotation_that_the_ontology_does_not_know_is_refused(run_exhibit):
    with pytest.raises(EarshotError, match="no class 'surfs'"):
        run_exhibit(annotations=[["surfs"], *ANNOTATIONS[1:]])


def test_shown_twice_it_is_the_same(run_exhibit, tmp_path):
    run_exhibit()
    first = {file.name: file.read_bytes() for file in (tmp_path / "result").iterdir()}
    run_exhibit()
    assert first == {file.name: file.read_bytes() for file in (tmp_path / "result").iterdir()}


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ({"name": "multisensory", "width": 0.1, "image_size": 32, "frames": 8, "audio_samples": 6000}, "sequences"),
        ({"name": "alexnet", "classes": 4, "width": 0.1, "image_size": 64, "dropout": 0.0}, "takes no audio"),
    ],
)
def test_networks_without_towers_have_nothing_to_show(tmp_path, architecture, reason):
    save_architecture(tmp_path, SimpleNamespace(architecture=architecture))
    assert reason in make(SimpleNamespace(encoder=tmp_path)).metadata[SKIPPED]
