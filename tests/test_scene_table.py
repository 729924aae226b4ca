"""Reading data/scenes: the tables, and the one-line error for every fault of a shard."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from annotated_scenes import RATE, TEST_GROUPS, flac, gray_jpeg

from earshot.core.errors import EarshotError
from earshot.corpus.split import split_of
from earshot.explanation.frames import FramePool
from earshot.labels.texton_histograms import write_histograms
from earshot.labels.textons import Textons
from earshot.networks.crops import crop_frames
from earshot.scenes.annotations import read_annotations
from earshot.scenes.arrow import binary_column, bytes_in, list_column, lists_of_bytes_in
from earshot.scenes.audio_slices import sound_slice
from earshot.scenes.clips import InputSpec, Sampling, clips_of
from earshot.scenes.duplicates import read_corpus
from earshot.scenes.moments import match_moments
from earshot.scenes.table import SceneTable, decoding_frames, frames_in, read_scenes
from earshot.scenes.writing import Scene, write_scenes

TRAIN_GROUPS = [name for name in (f"video_{number}" for number in range(100)) if split_of(name) == "train"]
CLIPS = 35  # two row groups
SPEC = InputSpec(image_size=32, frames=1, audio_samples=RATE // 2, audio_rate=RATE, audio_channels=1)
CENTERED = Sampling(positives="centered", negatives="other-group", grid_s=0.04, min_shift_s=0.0)


def scene(number: int) -> Scene:
    """A clip of one to three frames; every third is of the test split."""
    group = TEST_GROUPS[number % 30] if number % 3 == 0 else TRAIN_GROUPS[number % 30]
    frames = [gray_jpeg(10 * (moment + 1)) for moment in range(1 + number % 3)]
    times = [0.1 * moment for moment in range(len(frames))]
    return Scene(f"clip_{number}", group, 1.0, frames, times, flac(np.zeros(RATE)), RATE, 1)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "00000.parquet", [scene(number) for number in range(CLIPS)])
    write_scenes(folder / "00001.parquet", [scene(number) for number in range(CLIPS, CLIPS + 5)])
    return folder


def test_the_row_groups_of_a_split_hold_its_clips_and_no_others(scenes):
    groups = []
    for group, rows, table in SceneTable(scenes).split("test", ["clip_id", "duration"]):
        assert table.column_names == ["split", "clip_id", "duration"]
        assert group.read(["clip_id"])["clip_id"].take(pa.array(rows)) == table["clip_id"]
        groups.append((group.shard.stem, group.number, table["clip_id"].to_pylist()))
    assert [each[:2] for each in groups] == [("00000", 0), ("00000", 1), ("00001", 0)]
    assert sum((names for *_, names in groups), []) == [f"clip_{number}" for number in range(0, CLIPS + 5, 3)]


def test_clips_are_selected_by_name_in_the_order_of_the_table(scenes):
    clips = list(SceneTable(scenes).clips({"clip_31", "clip_4", "nobody"}, ["clip_id", "frames"]))
    assert [clip["clip_id"] for clip in clips] == ["clip_4", "clip_31"]
    assert clips[0]["frames"] == [gray_jpeg(10), gray_jpeg(20)]


def test_frames_are_taken_by_row_and_moment(scenes):
    table = next(read_scenes(scenes / "00000.parquet", ["frames"]))
    assert list(frames_in(table, np.array([5, 0, 1]), np.array([2, 0, 1]))) == [gray_jpeg(n) for n in (30, 10, 20)]


@pytest.mark.parametrize(("split", "kind"), [("train", memoryview), ("test", bytes)])
def test_few_clips_of_a_row_group_do_not_keep_the_others_in_memory(scenes, split, kind):
    """A third of each row group is of the test split; the others are read without a copy."""
    read = [clip for group in clips_of(scenes, SPEC, CENTERED, split=split) for clip in group.read()]
    assert len(read) == sum(number % 3 == 0 for number in range(CLIPS + 5)) if split == "test" else len(read) > 20
    for clip in read:
        expected = scene(int(clip.clip_id.removeprefix("clip_")))
        assert [bytes(frame) for frame in clip.frames] == expected.frames and bytes(clip.sound) == expected.sound
        assert {type(each) for each in (*clip.frames, clip.sound)} == {kind}


@pytest.mark.parametrize("cut", [slice(0, 9), slice(2, 7), slice(4, 4)])
def test_bytes_and_lists_of_them_are_read_from_any_part_of_a_column(cut):
    parts = [bytes([number]) * (number % 4) for number in range(9)]
    texts, lists = binary_column(parts), list_column([3, 0, 2, 1, 0, 0, 2, 1, 0], binary_column(parts))
    length = cut.stop - cut.start
    for column in (texts.slice(cut.start, length), pa.chunked_array([texts[:3], texts[3:]])[cut]):
        assert bytes_in(column, range(length)) == parts[cut]
    assert lists_of_bytes_in(lists.slice(cut.start, length), range(length)) == lists.to_pylist()[cut]


def moments_of(shard: Path) -> pa.Table:
    pairs = [
        (clip_id, moment)
        for table in read_scenes(shard, ["clip_id", "times"])
        for clip_id, times in zip(table["clip_id"].to_pylist(), table["times"].to_pylist(), strict=True)
        for moment in range(len(times))
    ]
    return pa.table({"clip_id": [clip for clip, _ in pairs], "moment": pa.array([n for _, n in pairs], pa.int16())})


def test_moments_are_matched_row_by_row_across_row_groups(scenes):
    shard = scenes / "00000.parquet"
    moments = moments_of(shard)
    groups = list(match_moments(shard, Path("other"), moments, advice="again"))
    assert [each.start for each in groups] == [0, len(groups[0].rows)]
    assert np.concatenate([each.places for each in groups]).tolist() == moments["moment"].to_pylist()
    with pytest.raises(EarshotError, match="^other: rows 0 to 48 are not the moments of .*00000.parquet; again$"):
        list(match_moments(shard, Path("other"), moments.slice(1), advice="again"))
    more = pa.concat_tables([moments, moments.slice(0, 1)])
    with pytest.raises(EarshotError, match=f"^other: {len(more)} rows for the {len(moments)} frames of .*; again$"):
        list(match_moments(shard, Path("other"), more, advice="again"))


def write_sounds(scenes: Path) -> Path:
    """The columns of the shard's table of sounds that texton histograms read."""
    moments = moments_of(scenes / "00000.parquet")
    same = {name: [name] * len(moments) for name in ("group", "split")}
    descriptor = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(len(moments)), pa.float32()), 1)
    columns = {**same, "silent": [False] * len(moments), "descriptor": descriptor}
    for name, values in columns.items():
        moments = moments.append_column(name, [values] if isinstance(values, list) else values)
    sounds = scenes.parent / "sounds.parquet"
    pq.write_table(moments, sounds)
    return sounds


def read_textons(scenes: Path, sounds: Path) -> None:
    write_histograms(scenes.parent / "out", scenes / "00000.parquet", sounds, Textons(np.zeros((2, 66), np.float32)))


READERS = {
    "a shard": lambda scenes, _: list(read_scenes(scenes / "00000.parquet", ["clip_id", "frames"])),
    "a split": lambda scenes, _: list(SceneTable(scenes).split("test", ["times"])),
    "clips by name": lambda scenes, _: list(SceneTable(scenes).clips({"clip_1"}, ["frames", "times"])),
    "clips for pairs": lambda scenes, _: [g.read() for g in clips_of(scenes, SPEC, CENTERED, split="test")],
    "frames to explain": lambda scenes, _: list(FramePool(scenes, 10).batches()),
    "textons": read_textons,
    "duplicates": lambda scenes, _: read_corpus([scenes / "00000.parquet"], 0.1, 0.1),
}


def cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-100])


def spoil_pages(shard: Path) -> None:
    """Keep the footer and overwrite the pages that it points to."""
    data = shard.read_bytes()
    footer = int.from_bytes(data[-8:-4], "little") + 8
    shard.write_bytes(b"\xff" * (len(data) - footer) + data[-footer:])


def drop(shard: Path, *columns: str) -> None:
    pq.write_table(pq.read_table(shard).drop_columns(list(columns)), shard)


FAULTS = {
    "no Parquet": (lambda shard: shard.write_bytes(b"PAR1"), "cannot be read"),
    "cut short": (cut_short, "cannot be read"),
    "spoiled pages": (spoil_pages, "cannot be read"),
    "a column less": (
        lambda shard: drop(shard, "frames", "times", "audio_print"),
        "has no column (frames|times|audio_print), found clip_id, group, split",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("reader", READERS)
def test_a_faulty_shard_is_refused_in_one_line_by_every_reader(tmp_path, reader, fault):
    scenes = tmp_path / "scenes"
    write_scenes(scenes / "00000.parquet", [scene(number) for number in range(9)])
    sounds = write_sounds(scenes)
    spoil, message = FAULTS[fault]
    spoil(scenes / "00000.parquet")
    with pytest.raises(EarshotError, match=rf"scenes/00000\.parquet: {message}") as refusal:
        READERS[reader](scenes, sounds)
    assert str(refusal.value).endswith("; run the stage extract again") and "\n" not in str(refusal.value)


def test_a_missing_shard_is_refused(tmp_path):
    with pytest.raises(EarshotError, match="holds no shards such as 00000.parquet"):
        SceneTable(tmp_path)
    write_scenes(tmp_path / "00001.parquet", [scene(0)])
    with pytest.raises(EarshotError, match=r"found 00001.parquet, expected 00000.parquet"):
        SceneTable(tmp_path)


def test_faulty_annotations_are_refused_in_one_line(tmp_path):
    (tmp_path / "00000.parquet").write_bytes(b"no Parquet")
    with pytest.raises(EarshotError, match=r"00000\.parquet: cannot be read .*; run the stage extract again$"):
        read_annotations(tmp_path / "00000.parquet")


def test_a_frame_and_a_sound_that_cannot_be_decoded_are_refused_in_one_line():
    message = r"^data/scenes: a frame is not JPEG \(8 bytes are no whole JPEG\); run the stage extract again$"
    with pytest.raises(EarshotError, match=message), decoding_frames(Path("data/scenes")):
        crop_frames([b"no image"], 8)
    with pytest.raises(EarshotError, match=r"a sound is not FLAC .*; run the stage extract again$"):
        sound_slice(b"no FLAC", 0.0, samples=10, rate=RATE, channels=1)
