"""Mirrors: published lists joined to tars that people have downloaded, compressed ones too."""

import gzip
import io
import tarfile
from pathlib import Path

import conftest
import pytest
from conftest import run_stage, without_children
from odd_media import MP4, TONE, render

from earshot.commands.recipe import apply_recipes
from earshot.core.errors import EarshotError
from earshot.corpus.ignored import read_ignored
from earshot.corpus.ledger import read_ledger
from earshot.corpus.split import split_of
from earshot.media import unpacking
from earshot.media.clips import MediaFile, read_listing
from earshot.media.joining import JoinedLists
from earshot.media.listing import list_shards
from earshot.media.unpacking import Unpacked
from earshot.pipeline.settings import settings
from earshot.scenes.annotations import read_annotations
from earshot.scenes.refused import read_refused_images
from earshot.scenes.table import read_scenes
from stages.extract import STAGE, main

VGGSOUND = """\
--PJHxphWEs,30,"dog, barking",train
---g-f_I2yQ,1,people marching,test
--i-y1v8Hy8,0,child singing,train
glLQrEijrKg,300,playing hammond organ,train
"""
# As in its file: a row a label, several of one clip one after another.
VGGSOUNDER = """\
video_id,label,modality,background_music,static_image,voice_over
---g-f_I2yQ_000001,male singing,A,True,False,False
---g-f_I2yQ_000001,people crowd,AV,True,False,False
"""
AUDIOSET = """\
# YTID, start_seconds, end_seconds, positive_labels
--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"
0a_b-c3D4e5, 120.000, 130.000, "/m/012xff"
0a_b-c3D4e5, 0.500, 10.500, "/m/012xff"
Yesterday_1, 7.000, 17.000, "/m/012xff"
"""


@pytest.fixture(autouse=True)
def in_process(request):
    if "with_children" in request.fixturenames:
        yield
        return
    with without_children():
        yield


@pytest.fixture
def with_children():
    """Child processes do the work of this test."""


@pytest.fixture
def one_worker(monkeypatch):
    """Corpora this small are extracted fastest in one process."""
    monkeypatch.setenv("EARSHOT_WORKERS", "1")
    settings.cache_clear()
    yield
    settings.cache_clear()


def tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def mirror(folder: Path, tars: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in tars.items():
        (folder / name).write_bytes(gzip.compress(data) if name.lower().endswith("gz") else data)
    return folder


def listed(folder: Path, lists: JoinedLists | None = None, unmatched: str = "warn") -> list[MediaFile]:
    listings = folder.with_name(f"{folder.name}-listings")
    scratch = folder.with_name(f"{folder.name}-scratch")
    options = {"scratch": scratch, "lists": lists, "unmatched": unmatched}
    count = list_shards(folder, 100, lambda number: listings / f"{number}.json", **options)
    return [clip for number in range(count) for clip in read_listing(listings / f"{number}.json")]


def content(clip: MediaFile) -> bytes:
    return clip.path.read_bytes()[clip.offset : clip.offset + clip.size]


def test_the_clips_of_compressed_tars_are_those_of_plain_ones(tmp_path, with_children):
    one, other = tar({"in/a.mp4": b"1" * 700, "in/b.mp4": b"22"}), tar({"c.mp4": b"333", "c.json": b'{"group": "g"}'})
    plain = listed(mirror(tmp_path / "plain", {"0.tar": one, "1.tar": other}))
    packed = listed(mirror(tmp_path / "packed", {"0.tar.gz": one, "1.TGZ": other}))
    assert [clip.source for clip in packed] == ["0.tar.gz/in/a.mp4", "0.tar.gz/in/b.mp4", "1.TGZ/c.mp4"]
    assert [content(clip) for clip in packed] == [content(clip) for clip in plain] == [b"1" * 700, b"22", b"333"]
    assert [(clip.clip_id, clip.group) for clip in packed] == [(clip.clip_id, clip.group) for clip in plain]


def test_a_damaged_compressed_tar_keeps_what_is_before_the_fault_and_ends_nothing(tmp_path, with_children):
    whole = {f"{name}.mp4": bytes(range(256)) * 40 for name in "ab"}
    folder = mirror(tmp_path / "m", {name: tar(whole) for name in ("0.tar.gz", "1.tar.gz", "2.tar.gz", "3.tar.gz")})
    # Stored, not compressed, so that half of the file is half of the tar.
    cut = gzip.compress(tar(whole), compresslevel=0)
    (folder / "0.tar.gz").write_bytes(cut[: 12 << 10])
    (folder / "1.tar.gz").write_bytes(b"no gzip at all")
    (folder / "2.tar.gz").write_bytes(cut[:-8] + bytes(8))  # the checksum and the length at its end
    clips = listed(folder)
    refused = {clip.source: clip.refusal for clip in clips if clip.refusal}
    assert {source: reason for source, (reason, _) in refused.items()} == dict.fromkeys(
        ("0.tar.gz", "1.tar.gz", "2.tar.gz"), "unreadable"
    )
    assert "damaged or truncated after 0 bytes" in refused["1.tar.gz"][1]
    usable = {clip.source for clip in clips if not clip.refusal}
    assert usable == {"0.tar.gz/a.mp4", "0.tar.gz/b.mp4"} | {f"{n}.tar.gz/{name}" for n in "23" for name in whole}
    first = next(clip for clip in clips if clip.source == "0.tar.gz/a.mp4")
    assert content(first) == whole["a.mp4"]


def test_a_bomb_is_refused_whole_and_its_bytes_are_removed(tmp_path, monkeypatch, with_children):
    monkeypatch.setattr(unpacking, "MIN_LIMIT", 1 << 20)
    folder = mirror(tmp_path / "m", {"0.tar.gz": tar({"a.mp4": bytes(16 << 20)}), "1.tar.gz": tar({"b.mp4": b"b"})})
    bomb, other = listed(folder)
    assert (bomb.source, bomb.refusal[0]) == ("0.tar.gz", "too-large")
    assert (other.source, other.refusal) == ("1.tar.gz/b.mp4", None)
    assert sum(file.stat().st_size for file in (tmp_path / "m-scratch").rglob("*.tar")) < 1 << 20


def test_a_tar_is_unpacked_once_and_again_when_it_changes(tmp_path):
    folder = mirror(tmp_path / "m", {"0.tar.gz": tar({"a.mp4": b"a"})})
    (clip,) = listed(folder)
    before = clip.path.stat().st_mtime_ns
    assert listed(folder)[0].path.stat().st_mtime_ns == before
    (folder / "0.tar.gz").write_bytes(gzip.compress(tar({"b.mp4": b"b"})))
    assert [clip.source for clip in listed(folder)] == ["0.tar.gz/b.mp4"]


def test_a_tar_that_is_no_file_is_a_refusal(tmp_path):
    unpacked = Unpacked(tmp_path / "gone.tar.gz", "gone.tar.gz", tmp_path / "scratch")
    unpacked.unpack()
    assert unpacked.problem == ("unreadable", "the shard is not a file") and not unpacked.tar.exists()


def test_compressed_tars_beside_videos_are_no_shards(tmp_path):
    folder = mirror(tmp_path / "m", {"0.tar.gz": tar({"a.mp4": b"a"}), "b.mp4": b"b"})
    assert [clip.source for clip in listed(folder)] == ["b.mp4"]


def test_extract_keeps_the_clips_of_a_mirror_with_their_labels_and_splits_and_the_report_shows_the_rest(
    tmp_path, one_worker, with_children
):
    for number, name in enumerate(("--PJHxphWEs_000030", "---g-f_I2yQ_000001")):
        render(tmp_path / f"{name}.mp4", *MP4, "-t", 2, sound=TONE.replace("440", str(300 + 200 * number)))
    render(tmp_path / "--i-y1v8Hy8_000000.mp4", *MP4, "-t", 2, sound="anullsrc=r=44100:cl=mono")
    names = [f"video/{path.name}" for path in sorted(tmp_path.glob("*.mp4"))]
    march, dog, mute = (path.read_bytes() for path in sorted(tmp_path.glob("*.mp4")))
    members = dict(zip(names, (march, dog, mute), strict=True)) | {"a.txt": b"note"}
    folder = mirror(tmp_path / "m", {"0.tar.gz": tar(members)})
    # A second tar with one of them again, cut off before its end.
    (folder / "1.tgz").write_bytes(gzip.compress(tar({names[0]: march}), compresslevel=0)[: len(march) + 1400])
    (folder / "README.md").write_text("a mirror")
    (tmp_path / "vggsound.csv").write_text(VGGSOUND)
    changes = {"clips": folder, "clips_manifest": tmp_path / "vggsound.csv", "split": "manifest", "ontology": "none"}
    options = [f"corpus.{key}={value}" for key, value in changes.items()]
    options += ["extract.frame_size=32", "extract.window_s=1.0", "extract.quality.silent=refuse"]
    options += ["extract.quality.duplicate_image=0"]
    root = tmp_path / "root"
    root.mkdir()
    arguments = ["--params", str(conftest.PARAMS), "--root", str(root)]
    STAGE.run(main, arguments + [word for change in options for word in ("--set", change)])
    shards = sorted((root / "data/scenes").glob("*.parquet"))
    rows = {row["group"]: row for shard in shards for part in read_scenes(shard) for row in part.to_pylist()}
    of_hash = "val" if split_of("--PJHxphWEs") == "val" else "train"
    assert {group: row["split"] for group, row in rows.items()} == {"--PJHxphWEs": of_hash, "---g-f_I2yQ": "test"}
    annotations = [read_annotations(root / "data/annotations" / shard.name) for shard in shards]
    known = {name: words for table in annotations for name, words in table.items()}
    assert known[rows["---g-f_I2yQ"]["clip_id"]] == ["people marching"] and len(known) == 2
    refused = [row for path in sorted((root / "data/scenes/ledger").glob("*.csv")) for row in read_ledger(path)]
    reasons = {row.source: row.reason for row in refused if row.status == "refused"}
    address = "https://www.youtube.com/watch?v="
    twins = {f"0.tar.gz/{names[0]}", f"1.tgz/{names[0]}"}
    assert [reasons.pop(name) for name in twins & reasons.keys()] == ["duplicate"]
    assert reasons == {
        f"0.tar.gz/{names[2]}": "silent",
        "1.tgz": "unreadable",
        f"{address}glLQrEijrKg": "not-found",
    }
    assert [name for name, _ in read_refused_images(root / "data/scenes")] == ["video_--i-y1v8Hy8_000000"]
    assert [(each.kind, each.files) for each in read_ignored(root / "data/scenes")] == [(".md", 1), (".txt", 1)]
    apply_recipes([], conftest.PARAMS.read_text(), root / "params.yaml", options)
    run_stage("report", root)
    page = (root / "report/clips.html").read_text()
    assert "4 of 6 clips were left out" in page and "README.md" in page and "not-found" in page
    assert page.count("First frame of") == 2  # the silent one's own, and that of the clip that the duplicate repeats
    assert "This run has no benchmark results" in (root / "report/index.html").read_text()


def lists(folder: Path, splits: str = "group", **texts: str) -> JoinedLists:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return JoinedLists(folder, splits)


def test_a_list_gives_labels_groups_and_splits_and_says_what_is_missing(tmp_path):
    first = tar({"video/--PJHxphWEs_000030.mp4": b"1", "video/---g-f_I2yQ_000001.mp4": b"2"})
    second = tar({"---g-f_I2yQ_000001.mp4": b"2 again", "extra_clip.mp4": b"3", "--i-y1v8Hy8_000000.mp4": b"4"})
    folder = mirror(tmp_path / "m", {"0.tar.gz": first, "1.tar": second})
    with pytest.warns(UserWarning, match=r"1 files of .* have no row: 1.tar/extra_clip.mp4; they have no annotations"):
        clips = listed(folder, lists(tmp_path / "lists", "manifest", vggsound=VGGSOUND, vggsounder=VGGSOUNDER))
    by_source = {clip.source: clip for clip in clips}
    dog, march = by_source["0.tar.gz/video/--PJHxphWEs_000030.mp4"], by_source["1.tar/---g-f_I2yQ_000001.mp4"]
    # A comma belongs to VGGSound's label. Of a training video, the hash alone decides between train and val.
    expected = "val" if split_of("--PJHxphWEs") == "val" else "train"
    assert (dog.group, dog.annotations, dog.split) == ("--PJHxphWEs", ("dog, barking",), expected)
    # VGGSounder's labels replace VGGSound's; it names no split, so VGGSound's stays.
    assert (march.annotations, march.split) == (("male singing", "people crowd"), "test")
    twin = by_source["0.tar.gz/video/---g-f_I2yQ_000001.mp4"]
    assert (twin.annotations, twin.group) == (march.annotations, march.group) and twin.clip_id != march.clip_id
    extra = by_source["1.tar/extra_clip.mp4"]
    assert (extra.group, extra.annotations, extra.split) == ("", (), "")
    missing = [clip for clip in clips if clip.refusal]
    assert [(clip.clip_id, clip.refusal[0], clip.annotations) for clip in missing] == [
        ("glLQrEijrKg_300000", "not-found", ("playing hammond organ",))
    ]
    assert missing[0].refusal[1].startswith("line 4 of vggsound.csv") and missing[0].split


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("--PJHxphWEs_000030", "/m/09x0r"),  # VGGSound's way, in seconds
        ("--PJHxphWEs_30000", "/m/09x0r"),  # AudioSet's and Earshot's, in milliseconds
        ("--PJHxphWEs_30000_40000", "/m/09x0r"),
        ("--PJHxphWEs_30.000_40.000", "/m/09x0r"),
        ("--PJHxphWEs_30_40", "/m/09x0r"),
        ("--PJHxphWEs", "/m/09x0r"),  # its only clip
        ("Y--PJHxphWEs", "/m/09x0r"),
        ("Y--PJHxphWEs_30000", "/m/09x0r"),
        ("0a_b-c3D4e5_120000", "/m/012xff"),  # six digits of milliseconds
        ("0a_b-c3D4e5_000120", "/m/012xff"),
        ("0a_b-c3D4e5_0.5_10.5", "/m/012xff"),
        ("Yesterday_1_7000", "/m/012xff"),  # a video whose id begins with Y
        ("Yesterday_1", "/m/012xff"),
        ("0a_b-c3D4e5", None),  # it has two clips
        ("--PJHxphWEs_31000", None),
        ("--pjhxphwes_30000", None),
    ],
)
def test_a_row_is_found_by_the_names_that_mirrors_use(tmp_path, name, expected):
    joined = lists(tmp_path / "lists", audioset=AUDIOSET)
    clip = joined.join(MediaFile("x", "", Path("x"), 0, 1, source=f"0.tar/deep/{name}.mp4"))
    assert clip.annotations[:1] == ((expected,) if expected else ())


def test_a_row_with_a_path_is_found_in_folders_and_tars(tmp_path):
    table = "path,start,end,group,label,split\nin/a.mp4,0,9,g,dog;cat,dev\nin/b.mp4,0,9,h,cat,validation\n"
    joined = lists(tmp_path / "lists", "manifest", own=table)
    for source in ("in/a.mp4", "0.tar/in/a.mp4"):
        clip = joined.join(MediaFile("x", "", Path("x"), 0, 1, source=source))
        assert (clip.group, clip.annotations, clip.split) == ("g", ("dog", "cat"), "")  # `dev` is no split
    assert [(clip.source, clip.split) for clip in joined.missing()] == [("in/b.mp4", "val")]


def test_a_video_in_several_splits_of_a_list_is_in_the_last(tmp_path):
    text = "--PJHxphWEs,30,dog,train\n--PJHxphWEs,70,dog,test\n"
    with pytest.warns(UserWarning, match="1 videos have clips in several splits, the first is --PJHxphWEs; all"):
        joined = lists(tmp_path / "lists", "manifest", vggsound=text)
    assert {clip.split for clip in joined.missing()} == {"test"}


def test_lists_that_do_not_fit_stop(tmp_path):
    folder = mirror(tmp_path / "m", {"0.tar": tar({"--PJHxphWEs_000030.mp4": b"", "other.mp4": b""})})
    joined = lists(tmp_path / "lists", vggsound=VGGSOUND)
    with pytest.raises(EarshotError, match=r"1 files of .* have no row: 0.tar/other.mp4; correct the list, or set"):
        listed(folder, joined, "stop")
    others = mirror(tmp_path / "others", {"0.tar": tar({"x.mp4": b""})})
    with pytest.raises(EarshotError, match="names none of the 1 files .* the first are 0.tar/x.mp4, the first row is"):
        listed(others, lists(tmp_path / "again", vggsound=VGGSOUND))
    with pytest.raises(EarshotError, match="names no split of its clips; set corpus.split=group"):
        lists(tmp_path / "audioset", "manifest", audioset=AUDIOSET)
    with pytest.raises(EarshotError, match="holds no list; name a csv or Parquet file"):
        lists(tmp_path / "empty")
