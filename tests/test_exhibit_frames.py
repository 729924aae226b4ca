"""The frames of a split: all, or some of them evenly, and again by their numbers."""

import numpy as np
import pytest
from annotated_scenes import RATE, TEST_GROUPS, flac, gray_jpeg

from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.explanation.frames import BATCH, FramePool
from earshot.scenes.writing import Scene, write_scenes

OTHERS = [name for name in (f"video_{number}" for number in range(100)) if split_of(name) != "test"]


def scene(group, frames):
    jpegs = [gray_jpeg(10 * (number + 1)) for number in range(frames)]
    silence = flac(np.zeros(RATE))
    return Scene(f"{group}_0", group, 1.0, jpegs, [0.1 * n for n in range(frames)], silence, RATE, 1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two shards: 30 clips of the test split with 1, 2, ... frames by turns, others between them."""
    folder = tmp_path_factory.mktemp("scenes")
    clips = [scene(group, 1 + number % 4) for number, group in enumerate(TEST_GROUPS[:30])]
    for place in range(28, 0, -3):
        clips.insert(place, scene(OTHERS[place], 3))
    write_scenes(folder / "00000.parquet", clips[:25])
    write_scenes(folder / "00001.parquet", clips[25:])
    return folder


def frames(pool, *requested, **options):
    return [frame for batch in pool.batches(*requested, **options) for frame in batch]


def test_all_frames_of_the_split_are_there_in_order(scenes):
    pool = FramePool(scenes, 1000)
    result = frames(pool)
    expected = [(group, moment) for n, group in enumerate(TEST_GROUPS[:30]) for moment in range(1 + n % 4)]
    assert [(frame.group, frame.moment) for frame in result] == expected
    assert [frame.number for frame in result] == list(range(len(pool))) == list(range(len(expected)))
    assert all(frame.jpeg == gray_jpeg(10 * (frame.moment + 1)) for frame in result)
    assert {len(batch) for batch in list(pool.batches())[:-1]} == {BATCH}


@pytest.mark.parametrize("limit", [1, 7, 30, 72])
def test_some_frames_are_spread_evenly_over_all(scenes, limit):
    whole, pool = frames(FramePool(scenes, 1000)), FramePool(scenes, limit)
    assert len(pool) == limit
    places = [[(f.clip_id, f.moment) for f in whole].index((f.clip_id, f.moment)) for f in frames(pool)]
    assert places == [number * len(whole) // limit for number in range(limit)]


def test_frames_are_found_again_by_their_numbers_with_images_and_without(scenes):
    pool = FramePool(scenes, 40)
    every = {frame.number: frame for frame in frames(pool)}
    assert frames(pool, {3, 39, 17}) == [every[3], every[17], every[39]]
    bare = frames(pool, {3, 17}, images=False)
    assert [(f.clip_id, f.moment, f.jpeg) for f in bare] == [(every[n].clip_id, every[n].moment, b"") for n in (3, 17)]


def test_a_split_without_frames_and_a_damaged_shard_are_refused(scenes, tmp_path):
    write_scenes(tmp_path / "00000.parquet", [scene(OTHERS[0], 2)])
    with pytest.raises(EarshotError, match="holds no frame of the split test"):
        FramePool(tmp_path, 10)
    (tmp_path / "00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(EarshotError, match="00000.parquet: cannot be read .*run the stage extract"):
        FramePool(tmp_path, 10)
