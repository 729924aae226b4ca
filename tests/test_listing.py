"""Listing clips: in folders and tar files of any kind, under unique names."""

import io
import json
import os
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import PARAMS
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_media import render
from peak_memory import measured

from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.media import listing
from earshot.media.clips import may_be_clip, read_listing
from earshot.media.decoder_process import Decoder
from earshot.media.folders import walk
from earshot.media.listing import list_shards
from earshot.params.extract import Params
from earshot.scenes.extraction import extract_clips


def listed(folder: Path, size: int = 100) -> list[list]:
    """The clips of a corpus by shard; the listings lie beside it."""
    listings = folder.with_name(f"{folder.name}-listings")
    count = list_shards(folder, size, lambda number: listings / f"{number}.json")
    return [read_listing(listings / f"{number}.json") for number in range(count)]


def tar(path: Path, files: dict[str, bytes | dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            data = json.dumps(data).encode() if isinstance(data, dict) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


# Folders


NAMES = st.text("ab.-_ é", min_size=1, max_size=4).filter(lambda name: name.strip(".") and not name.startswith("."))
DATASETS = st.recursive(st.just(None), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, DATASETS, min_size=1, max_size=4))
def test_files_come_in_the_order_of_their_relative_names(tmp_path_factory, contents):
    root, expected = tmp_path_factory.mktemp("data_dir"), []

    def create(folder: str, inside: dict) -> None:
        for name, below in inside.items():
            if below is None:
                (root / folder / name).touch()
                expected.append(folder + name)
            else:
                (root / folder / name).mkdir()
                create(f"{folder}{name}/", below)

    create("", contents)
    assert list(walk(root)) == sorted(expected)


def test_a_folder_is_cut_into_shards_and_nothing_hidden_counts(tmp_path):
    folder = touch(tmp_path / "f", "b/2.mp4", "b/1.webm", "a.mkv", ".x/3.mp4", ".4.mp4", "notes.txt", "b.avi")
    assert [[clip.source for clip in shard] for shard in listed(folder, 3)] == [
        ["a.mkv", "b.avi", "b/1.webm"],
        ["b/2.mp4"],
    ]


def test_a_manifest_of_a_folder_names_groups_and_a_json_beside_a_clip_does_too(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4")
    (folder / "manifest.csv").write_text("file,group,label\na.mp4,g,x\nf/b.mp4,g,x;y\na.mp4,h,z\n")
    (folder / "c.json").write_text('{"url": "https://youtu.be/--PJHxphWEs", "caption": "a dog; asleep"}')
    (folder / "a.json").write_text('{"group": "of the json"}')
    (folder / "d.json").write_text('[{"box": [1, 2]}]')
    (folder / "e.json").write_text("no json")
    (folder / "f.json").write_text('{"annotations": {"of": "another kind"}}')
    listing = {clip.source: (clip.group, clip.annotations) for shard in listed(folder) for clip in shard}
    assert listing == {
        "a.mp4": ("h", ("z",)),
        "b.mp4": ("g", ("x", "y")),
        "c.mp4": ("--PJHxphWEs", ("a dog; asleep",)),
        "d.mp4": ("", ()),
        "e.mp4": ("", ()),
        "f.mp4": ("", ()),
    }


def test_a_json_that_is_a_link_out_of_the_folder_is_not_read(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4")
    (tmp_path / "outside.json").write_text('{"group": "outside"}')
    (folder / "a.json").symlink_to(tmp_path / "outside.json")
    assert listed(folder)[0][0].group == ""


# Names


CLASHING = st.lists(st.text("ab _", min_size=1, max_size=2), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(st.lists(CLASHING, min_size=1, max_size=4))
def test_no_two_clips_share_a_name_and_a_unique_name_stays(tmp_path_factory, shards):
    root = tmp_path_factory.mktemp("clashing") / "tars"
    for number, names in enumerate(shards):
        tar(root / f"{number:05d}.tar", {f"{name}.mp4": name.encode() for name in dict.fromkeys(names)})
    clips = [clip for shard in listed(root) for clip in shard]
    assert len({clip.clip_id for clip in clips}) == len(clips)
    plain = Counter(listing_name(clip.source) for clip in clips)
    for clip in clips:
        name = listing_name(clip.source)
        assert clip.clip_id == name if plain[name] == 1 else clip.clip_id.startswith(f"{name}-")
        assert clip.path.read_bytes()[clip.offset : clip.offset + clip.size].decode() == Path(clip.source).stem


def listing_name(source: str) -> str:
    return Path(source).stem.replace(" ", "_") if Path(source).stem.strip() else "_"


def test_a_name_that_still_repeats_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_with_location", lambda clip: clip)
    for number in range(2):
        tar(tmp_path / "tars" / f"{number}.tar", {"a.mp4": b"a", f"{number}.mp4": b"b"})
    with pytest.raises(EarshotError, match="several clips share the name a; rename"):
        listed(tmp_path / "tars")


# Tar files


def numbered(key: str, url: str, **more: object) -> dict:
    """A clip's metadata as video2dataset writes it."""
    kept = {"url": url, "key": key, "status": "success", "error_message": None, "yt_meta_dict": None}
    return kept | {"clips": [["00:00:01.000", "00:00:03.000"]], "video_metadata": {"streams": []}} | more


@pytest.fixture
def video2dataset(tmp_path):
    """Two shards as video2dataset leaves them, the second of three missing; two clips are of one video."""
    root = tmp_path / "video2dataset"
    failed = {"status": "failed_to_download", "error_message": "ERROR: [youtube]: Video unavailable\nsorry"}
    youtube = "https://www.youtube.com/watch?v=--PJHxphWEs"
    tar(root / "00000.tar", {
        "000000000_00000.mp4": b"zero", "000000000_00000.txt": b"a dog",
        "000000000_00000.json": numbered("000000000_00000", youtube, caption="a dog"),
        "000000001.json": numbered("000000001", "https://youtu.be/0a_b-c3D4e5", **failed),
        "000000002.mp4": b"two", "000000002.m4a": b"its sound", "000000002.jpg": b"its thumbnail",
        "000000002.json": numbered("000000002", "https://a.org/videos/rain.mp4", label="rain; wind"),
    })  # fmt: skip
    tar(root / "00002.tar", {
        "000020000.webm": b"again",
        "000020000.json": numbered("000020000", "https://youtu.be/--PJHxphWEs?t=9", caption=None),
        "000020001.mp4": b"no metadata", "000020001.txt": b"a cat\n", "000020001.cls": b"7",
    })  # fmt: skip
    (root / "_tmp").mkdir()
    for name in ("00000.parquet", "00000_stats.json", "00002_stats.json", "_tmp/0.feather"):
        (root / name).write_bytes(b"{}")
    return root


def test_the_output_of_video2dataset_enters_with_the_video_as_its_group(video2dataset):
    first, second = listed(video2dataset)
    assert [(clip.clip_id, clip.group, clip.annotations) for clip in first] == [
        ("000000000_00000", "--PJHxphWEs", ("a dog",)),
        ("000000001", "", ()),
        ("000000002", first[2].group, ("rain", "wind")),
    ]
    assert first[2].group.startswith("rain-")
    assert first[1].refusal[0] == "not-found" and "Video unavailable" in first[1].refusal[1]
    assert [(clip.clip_id, clip.group, clip.annotations) for clip in second] == [
        ("000020000", "--PJHxphWEs", ()),
        ("000020001", "", ("a cat",)),
    ]
    assert [clip.source for clip in second] == ["00002.tar/000020000.webm", "00002.tar/000020001.mp4"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"videoID": "--PJHxphWEs"},
        {"url": "http://youtube.com/watch?v=--PJHxphWEs", "videoID": "another"},
        {"yt_meta_dict": {"info": {"id": "x", "webpage_url": "https://m.youtube.com/watch?v=--PJHxphWEs"}}},
        {"url": "", "youtube_id": "--PJHxphWEs", "yt_meta_dict": None},
        {"group": "--PJHxphWEs", "url": "https://a.org/"},
    ],
)
def test_a_video_has_one_name_whichever_key_holds_it(tmp_path, metadata):
    tar(tmp_path / "tars" / "0.tar", {"0.mp4": b"", "0.json": metadata})
    assert listed(tmp_path / "tars")[0][0].group == "--PJHxphWEs"


def test_keys_that_repeat_in_every_shard_give_clips_of_their_own(tmp_path):
    for number in range(3):
        tar(tmp_path / "tars" / f"{number}.tar", {"0.mp4": b"", "1.mp4": b"", f"once{number}.mp4": b""})
    ids = [clip.clip_id for shard in listed(tmp_path / "tars") for clip in shard]
    assert len(set(ids)) == 9 and {"once0", "once1", "once2"} < set(ids)
    assert {clip_id.split("-")[0] for clip_id in ids} == {"0", "1", "once0", "once1", "once2"}


def test_tars_lie_in_folders_and_may_be_links_within_and_without(tmp_path):
    tar(tmp_path / "tars" / "deep" / "er" / "part-7.tar", {"a.mp4": b""})
    tar(tmp_path / "cache" / "ab12", {"b.mp4": b""})
    (tmp_path / "tars" / "00003.tar").symlink_to(tmp_path / "cache" / "ab12")  # as DVC's cache may have it
    (tmp_path / "tars" / "gone.tar").symlink_to("nowhere")
    (tmp_path / "tars" / "a.tar").mkdir()
    os.mkfifo(tmp_path / "tars" / "pipe.tar")
    refusals = {clip.source: clip.refusal for shard in listed(tmp_path / "tars") for clip in shard}
    no_file = ("unreadable", "the shard is not a file")
    assert refusals == {
        "00003.tar/b.mp4": None,
        "deep/er/part-7.tar/a.mp4": None,
        "gone.tar": no_file,
        "pipe.tar": no_file,
    }


def test_a_compressed_tar_among_others_does_not_vanish(tmp_path):
    tar(tmp_path / "tars" / "00000.tar", {"a.mp4": b""})
    with pytest.raises(EarshotError, match="holds no videos; .* not compressed"):
        listed(touch(tmp_path / "packed", "00001.tar.gz"))
    first, second = listed(touch(tmp_path / "tars", "00001.tar.gz"))
    assert (first[0].source, first[0].refusal) == ("00000.tar/a.mp4", None)
    assert (second[0].source, second[0].refusal[0]) == ("00001.tar.gz", "unsupported")


def test_videos_beside_tars_are_named(tmp_path):
    tar(tmp_path / "tars" / "x" / "0.tar", {"a.mp4": b""})
    touch(tmp_path / "tars", "y/z.mp4")
    with pytest.raises(EarshotError, match="holds tar shards and also y/z.mp4"):
        listed(tmp_path / "tars")


def test_containers_of_every_kind_are_decoded_where_they_lie(tmp_path):
    kinds = {
        "webm": ("-c:v", "libvpx", "-deadline", "realtime", "-c:a", "libopus"),
        "mkv": ("-c:v", "libx264", "-preset", "ultrafast", "-c:a", "libopus"),
        "avi": ("-c:v", "mpeg4", "-c:a", "mp3"),
    }
    files = {f"{kind}.{kind}": render(tmp_path / f"v.{kind}", *codecs).read_bytes() for kind, codecs in kinds.items()}
    tar(tmp_path / "tars" / "in" / "00005.tar", files | {"webm.json": numbered("0", "https://youtu.be/--PJHxphWEs")})
    (clips,) = listed(tmp_path / "tars")
    params = load_params(Params, PARAMS, ["extract.frame_size=32", "extract.window_s=1.0"]).extract
    ledger = []
    with Decoder(params.decode_timeout_s) as decoder:
        scenes = list(extract_clips(clips, decoder, params, 0, ledger))
    assert [(row.source, row.status) for row in ledger] == [(f"in/00005.tar/{name}", "kept") for name in files]
    assert [scene.group for scene in scenes] == ["--PJHxphWEs", "mkv", "avi"]
    assert all(scene.duration == pytest.approx(5, abs=0.2) for scene in scenes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text("a./\\\n\udce9é ", max_size=5), max_size=6), st.sampled_from(["", ".mp4", ".json"]))
def test_members_may_be_called_anything(tmp_path_factory, names, suffix):
    root = tmp_path_factory.mktemp("odd") / "tars"
    tar(root / "0.tar", {"fine.mp4": b"fine"} | {name + suffix: b"{}" for name in names})
    (clips,) = listed(root)
    assert len({clip.clip_id for clip in clips}) == len(clips)
    assert "fine" in {clip.clip_id for clip in clips}
    assert all(clip.clip_id and "/" not in clip.clip_id and "\n" not in clip.clip_id for clip in clips)


@pytest.mark.parametrize("metadata", [b"[" * 100_000, b"\xff", b'"text"', b"{" + b" " * (1 << 20) + b"}"])
def test_metadata_that_cannot_be_read_costs_only_its_clip(tmp_path, metadata):
    tar(tmp_path / "tars" / "0.tar", {"0.mp4": b"", "0.json": metadata, "1.mp4": b"", "2.json": metadata})
    first, second = listed(tmp_path / "tars")[0]
    assert first.refusal[0] == "unreadable" and first.refusal[1].startswith("its .json: ")
    assert second.refusal is None


def test_what_is_known_to_be_something_else_is_no_clip():
    assert all(map(may_be_clip, ("a.mp4", "a.webm", "a.MKV", "a.avi", "a", "a.unknown")))
    assert not any(map(may_be_clip, ("a.txt", ".a.mp4", "a.JPG", "0.parquet", "0.feather", "0.cls", "a.tar")))


# Size


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["files", "tars"])
def test_memory_is_flat_from_a_thousand_to_a_hundred_thousand_clips(tmp_path, kind):
    def peak(count: int) -> float:
        """Peak memory of listing that many clips, in MB."""
        root = tmp_path / str(count)
        root.mkdir()
        for number in range(0, count, 1000):
            names = [f"video-{clip:012d}" for clip in range(number, number + 1000)]
            if kind == "tars":
                metadata = {"group": "a video", "annotations": ["a", "b"]}
                tar(root / f"{number // 1000:05d}.tar", {f"{n}{s}": d for n in names for s, d in
                                                         ((".json", metadata), (".mp4", b"a clip"))})  # fmt: skip
                continue
            (root / f"{number:06d}").mkdir()
            for name in names:
                (root / f"{number:06d}" / f"{name}.mp4").touch()
        if kind == "files":
            rows = (f"{n // 1000 * 1000:06d}/video-{n:012d}.mp4,group {n},a word\n" for n in range(count))
            (root / "manifest.csv").write_text("file,group,label\n" + "".join(rows))
        imports = "from pathlib import Path; from earshot.media.listing import list_shards"
        work = "list_shards(Path(sys.argv[1]), 250, lambda number: Path(sys.argv[2]) / f'{number}.json')"
        shards, megabytes, seconds = measured(imports, work, root, tmp_path / f"listings-{count}")
        print(f"{count:,} clips of {kind}: {shards} shards, {megabytes:.1f} MB, {seconds:.1f} s")
        return megabytes

    few, many = peak(1_000), peak(100_000)
    assert many < few + 20
