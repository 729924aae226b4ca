"""Listing clips: in folders and tar files of any kind, under unique names."""

import io
import json
import os
import re
import tarfile
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from conftest import PARAMS, without_children
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_media import render
from peak_memory import measured

from earshot.core.errors import EarshotError
from earshot.core.params import load_params
from earshot.core.untrusted import open_without_links
from earshot.media.clips import may_be_clip, read_listing
from earshot.media.decoder_process import Decoder, Request, decode_request
from earshot.media.decoding import DecodeOptions
from earshot.media.folders import walk
from earshot.media.listing import list_shards
from earshot.params.extract import ExtractParams
from earshot.scenes.extraction import extract_clips


def listed(folder: Path, size: int = 100) -> list[list]:
    """The clips of a corpus by shard; the listings lie beside it."""
    listings = folder.with_name(f"{folder.name}-listings")
    count = list_shards(folder, size, lambda number: listings / f"{number}.json")
    return [read_listing(listings / f"{number}.json") for number in range(count)]


@pytest.fixture
def in_process():
    with without_children():
        yield


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
        (folder / name).write_bytes(os.fsencode(name))
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
    (folder / "manifest.csv").write_text("file,group,label\na.mp4,h,z\nf/b.mp4,g,x;y\na.mp4,h,z\n")
    (folder / "c.json").write_text('{"url": "https://youtu.be/--PJHxphWEs", "caption": "a dog; asleep"}')
    (folder / "a.json").write_text('{"group": "of the json"}')
    for name in "def":
        (folder / f"{name}.json").write_text('{"of": "another kind"}')
    listing = {clip.source: (clip.group, clip.annotations) for shard in listed(folder) for clip in shard}
    assert listing == {
        "a.mp4": ("h", ("z",)),
        "b.mp4": ("g", ("x", "y")),
        "c.mp4": ("--PJHxphWEs", ("a dog; asleep",)),
        "d.mp4": ("", ()),
        "e.mp4": ("", ()),
        "f.mp4": ("", ()),
    }


def manifest(folder: Path, *rows: str, header: str = "file,group,label") -> None:
    folder.mkdir(exist_ok=True)
    text = "".join(f"{row}\n" for row in (header, *rows))
    (folder / "manifest.csv").write_text(text, encoding="utf-8", errors="surrogateescape")


def groups(folder: Path, **options: object) -> dict[str, str]:
    """The group of each file; by default rows and files that do not match stop."""
    listings = folder.with_name(f"{folder.name}-listings")
    options = {"unmatched": "stop"} | options
    count = list_shards(folder, 100, lambda number: listings / f"{number}.json", **options)
    return {clip.source: clip.group for n in range(count) for clip in read_listing(listings / f"{n}.json")}


ACCENT = "caf\u00e9"


@pytest.mark.parametrize(
    ("file", "row"),
    [
        (unicodedata.normalize("NFD", f"{ACCENT}.mp4"), f"{ACCENT}.mp4"),
        (f"{ACCENT}.mp4", unicodedata.normalize("NFD", f"{ACCENT}.mp4")),
        (unicodedata.normalize("NFD", f"{ACCENT}.MP4"), f"F/{ACCENT.upper()}.mp4"),
        ("c1.mp4", "  c1.mp4  "),
        (" c1.mp4", "c1.mp4"),
        ("c1.mp4", "./c1.mp4"),
        ("in/c1.mp4", "in//./c1.mp4"),
        ("in/c1.mp4", "in/x/../c1.mp4"),
        ("in/c1.mp4", "../f/in/c1.mp4"),
        ("c1.mp4", "C1.MP4"),
        ("In/C1.mp4", "in/c1.mp4"),
        ("in/c1.mp4", "in\\c1.mp4"),
        ("in/c1.mp4", ".\\In\\C1.mp4"),
        ("in\\c1.mp4", "in\\c1.mp4"),
        ("in/c1.mp4", "{root}/in/c1.mp4"),
        ("in/c1.mp4", "{root}/./in//c1.mp4"),
        ("f/c1.mp4", "f/c1.mp4"),
        ("a\udce9.mp4", "a\udce9.mp4"),
    ],
)
def test_a_row_names_its_file_however_it_is_written(tmp_path, file, row):
    folder = touch(tmp_path / "f", file, "other.mp4")
    manifest(folder, f"{row.format(root=folder)}, g, x", "other.mp4,h,")
    assert groups(folder) == {file: "g", "other.mp4": "h"}


@settings(max_examples=60, deadline=None)
@given(
    st.sets(st.text("aA\u00e9\u00c9\u00f6. -", min_size=1, max_size=5), min_size=1, max_size=6),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from(["NFC", "NFD"]),
    st.sampled_from([str, str.upper, str.swapcase, lambda name: f"./{name}", lambda name: f" {name} "]),
)
def test_no_group_of_a_manifest_is_lost_or_exchanged(tmp_path_factory, stems, of_files, of_rows, written):
    folder = tmp_path_factory.mktemp("any") / "f"
    names = {f"v{number}{stem}.mp4" for number, stem in enumerate(sorted(stems))}
    files = {unicodedata.normalize(of_files, name): f"group of {name}" for name in names}
    touch(folder, *files)
    manifest(folder, *(f'"{written(unicodedata.normalize(of_rows, name))}",group of {name}' for name in names))
    assert groups(folder) == files


def test_an_exact_name_precedes_a_similar_one(tmp_path):
    both = [unicodedata.normalize(form, f"{ACCENT}.mp4") for form in ("NFC", "NFD")]
    folder = touch(tmp_path / "f", "a.mp4", "A.mp4", *both)
    manifest(folder, "A.mp4,upper", "a.mp4,lower", f"{both[0]},nfc", f"{both[1]},nfd")
    assert groups(folder) == {"a.mp4": "lower", "A.mp4": "upper", both[0]: "nfc", both[1]: "nfd"}
    touch(folder, "b.MP4", "B.mp4")
    manifest(folder, "b.mp4,g")
    with pytest.raises(EarshotError, match="line 2: b.mp4 may be .* and .*; write the exact name of one"):
        groups(folder)


@pytest.mark.parametrize("header", ["File,Group,Label", " path , group , label ", "filename,group,Annotations",
                                    "FileName,group,x", "file_name,group,x", "filepath,GROUP,x,x"])  # fmt: skip
def test_a_header_may_be_written_in_many_ways(tmp_path, header):
    folder = touch(tmp_path / "f", "a.mp4")
    manifest(folder, "a.mp4,g,bell", ",,", header=header)
    assert groups(folder) == {"a.mp4": "g"}


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("file,group", ["a.mp4,g", "b.mp4,h", "a.mp4,h"], "lines 2 and 4 both name a.mp4, with different groups"),
        ("file,group", ["a.mp4,g", "b.mp4,h", "./A.mp4,h"], "lines 2 and 4 both name a.mp4"),
        ("file,label", ["a.mp4,dog", "a.mp4,cat", "b.mp4,"], "lines 2 and 3 both name a.mp4.*separated by semicolons"),
        ("file,group,group", ["a.mp4,g,h", "b.mp4,,"], "has the column group twice"),
        ("file,group,Group", ["a.mp4,g,h", "b.mp4,,"], "has the column group twice"),
        ("file,file,group", ["a.mp4,b.mp4,h"], "has the column file twice"),
        ("file,label,label", ["a.mp4,x,y"], "has the column label twice"),
        ("file,group", ["a, b.mp4,g", "b.mp4,h"], "line 2: 3 fields, expected 2 as in the header; quote"),
        ("file,group", ['"a.mp4,g', "b.mp4,h"], "correct or remove the manifest"),
        ("file|group", ["a.mp4|g"], "expected one named file or path; separate columns by commas"),
        ("file,group", ["a.mp4,g"], "1 files have no row: b.mp4; correct the manifest, or set corpus.unmatched=warn"),
        ("file,group", ["a.mp4,g", "b.mp4,h", "c.mp4,i"], r"1 rows name no file: c.mp4 \(line 4\); correct"),
        ("file,group", ["a.mp4,g", "b,h"], r"rows name no file: b \(line 3\) and 1 files have no row: b.mp4; correct"),
        ("file,group", ["a.mp4,g", ",h"], "1 rows name no file"),
        ("file,group", ["a.mp4,g", "/elsewhere/b.mp4,h"], "1 rows name no file: /elsewhere/b.mp4"),
        ("file,group", ["c.mp4,g"], r"names none of the 2 files beside it; the first is a.mp4, the first row .* c.mp4"),
    ],
)
def test_a_manifest_that_would_lose_something_stops_and_names_it(tmp_path, header, rows, message):
    folder = touch(tmp_path / "f", "a.mp4", "b.mp4")
    manifest(folder, *rows, header=header)
    with pytest.raises(EarshotError, match=message):
        groups(folder)


def test_unmatched_rows_and_files_may_warn_and_many_are_counted(tmp_path):
    folder = touch(tmp_path / "f", *(f"{number}.mp4" for number in range(9)))
    manifest(folder, "0.mp4,g", *(f"no{number}.mp4,h" for number in range(1200)))
    (folder / "1.json").write_text('{"group": "of the json"}')
    text = (
        "1,200 rows name no file: no0.mp4 .line 3., no1.mp4 .line 4., no2.mp4 .line 5., ... and 7 files have no row: 2"
    )
    with pytest.warns(UserWarning, match=text):
        assert groups(folder, unmatched="warn") == {"0.mp4": "g", "1.mp4": "of the json"} | dict.fromkeys(
            (f"{number}.mp4" for number in range(2, 9)), ""
        )


def test_a_row_without_a_group_takes_that_of_the_json_and_a_manifest_may_be_in_capitals(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4", "b.mp4", "c.mp4")
    manifest(folder, "a.mp4,bell", "b.mp4,dog", "c.mp4,", header="file,label")
    (folder / "manifest.csv").rename(folder / "Manifest.CSV")
    (folder / "a.JSON").write_text('{"group": "g", "annotations": "x"}')
    (folder / "c.json").write_text('{"group": "h", "annotations": "x; y"}')
    assert [(clip.group, clip.annotations) for clip in listed(folder)[0]] == [
        ("g", ("bell",)), ("", ("dog",)), ("h", ("x", "y")),
    ]  # fmt: skip


SIDECARS = [
    ('{"annotations": "dog; cat", "group": "g"}', "g", ("dog", "cat")),
    ('{"annotations": "dog"}', "", ("dog",)),
    ('{"annotations": ["a; b"], "group": 7}', "7", ("a; b",)),
    ('{"annotations": "", "label": "x;y", "group": null}', "", ("x", "y")),
    ('\ufeff{"group": "g"}', "g", ()),
    ("no json", "its .json: Expecting value", None),
    ('[{"box": [1, 2]}]', "its .json: a list, expected a mapping", None),
    ('{"annotations": {"of": "another"}}', "its .json: annotations are a dict, expected a list or a text", None),
    ('{"group": ["g"]}', "its .json: group is .*list.*, expected a text or a number", None),
    ('{"group": NaN}', "its .json: group is nan", None),
    ("{" + " " * (1 << 20) + "}", "its .json: not a file of at most", None),
    ("", "its .json: Expecting value", None),
]


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(("text", "group", "annotations"), SIDECARS)
def test_a_sidecar_says_the_same_in_a_folder_and_in_a_tar(tmp_path, kind, text, group, annotations):
    if kind == "tar":
        tar(tmp_path / "f" / "0.tar", {"a.mp4": b"", "a.json": text.encode()})
    else:
        (touch(tmp_path / "f", "a.mp4") / "a.json").write_text(text)
    (clip,) = listed(tmp_path / "f")[0]
    if annotations is None:
        assert clip.refusal[0] == "unreadable" and re.match(group, clip.refusal[1])
    else:
        assert (clip.refusal, clip.group, clip.annotations) == (None, group, annotations)


def test_what_systems_leave_beside_videos_is_counted_by_suffix(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4", "b.unknown", "Thumbs.db", "in/desktop.ini", "x.nfo", "c.mp4~", "lone.json")
    touch(folder, *(f"{number}.tmp" for number in range(1200)), "z.TMP", "._a.tmp")
    text = (
        r"skipped 1 .db \(the first is Thumbs.db\), 1 .ini \(the first is in/desktop.ini\), "
        r"1 .json without a clip \(the first is lone.json\), 1 .mp4~ \(the first is c.mp4~\), "
        r"1 .nfo \(the first is x.nfo\), 1,201 .tmp \(the first is 0.tmp\); rename those"
    )
    with pytest.warns(UserWarning, match=text) as warned:
        assert [clip.source for clip in listed(folder)[0]] == ["a.mp4", "b.unknown"]
    assert len(warned) == 1
    with pytest.raises(EarshotError, match="holds no videos"):
        listed(touch(tmp_path / "g", "Thumbs.db", "1.tmp"))


# Links


def outcomes(folder: Path, *follow_links: Path) -> dict[str, str]:
    """The refusal of each file, or an empty text."""
    listings = folder.with_name(f"{folder.name}-listings")
    count = list_shards(folder, 100, lambda number: listings / f"{number}.json", follow_links=follow_links)
    clips = [clip for n in range(count) for clip in read_listing(listings / f"{n}.json")]
    return {clip.source: clip.refusal[1] if clip.refusal else "" for clip in clips}


@pytest.mark.parametrize("cache", [".dvc/cache/files/md5", "elsewhere/cache/files/md5", "shared"])
def test_links_to_the_cache_of_dvc_are_followed(tmp_path, cache):
    folder, blob = tmp_path / "f", tmp_path / cache / "ab" / "0123456789abcdef0123456789abcd"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"video")
    (folder / "in").mkdir(parents=True)
    for name in ("a.mp4", "in/b.mp4"):
        (folder / name).symlink_to(blob)
    metadata = blob.with_name("f" * 30)
    metadata.write_text('{"group": "g"}')
    (folder / "a.json").symlink_to(metadata)
    assert [(clip.source, clip.group, clip.size, clip.refusal) for clip in listed(folder)[0]] == [
        ("a.mp4", "g", 5, None), ("in/b.mp4", "", 5, None),
    ]  # fmt: skip


@pytest.mark.parametrize("target", ["secret.mp4", "ab/secret.mp4", "ab/" + "x" * 30, "abc/" + "0" * 30])
def test_links_elsewhere_are_refused_unless_their_folder_is_named(tmp_path, target):
    outside = touch(tmp_path / "outside", target)
    folder = touch(tmp_path / "f", "own.mp4")
    (folder / "link.mp4").symlink_to(outside / target)
    refused = outcomes(folder)
    assert refused["own.mp4"] == ""
    expected = f"a link that leads out of the folder, to {outside / target}; corpus.follow_links may name its folder"
    assert refused["link.mp4"] == expected
    assert outcomes(folder, tmp_path / "another")["link.mp4"] == expected
    assert outcomes(folder, outside) == outcomes(folder, (outside / target).parent) == {"own.mp4": "", "link.mp4": ""}


def test_linked_folders_are_walked_if_they_are_named_and_end(tmp_path):
    disk, folder = touch(tmp_path / "disk", "deep/a.mp4", "b.mp4"), touch(tmp_path / "f", "own.mp4", "in/c.mp4")
    (folder / "disk").symlink_to(disk)
    (folder / "in" / "deep").symlink_to(disk / "deep")
    (disk / "deep" / "again").symlink_to(disk)
    (disk / "deep" / "back").symlink_to(folder)
    (disk / "deep" / "key.mp4").symlink_to("/etc/passwd")
    inside = "in/deep/"
    refused = outcomes(folder, disk)
    kept = {"own.mp4", "in/c.mp4", "disk/b.mp4", "disk/deep/a.mp4", inside + "a.mp4"}
    assert {name for name, why in refused.items() if not why} >= kept
    assert {name for name, why in refused.items() if not why} - kept <= {inside + "again/b.mp4"}
    assert "/etc/passwd" in refused["disk/deep/key.mp4"] and refused["disk/deep/again"] == "not a regular file"
    assert set(outcomes(folder)) == {"own.mp4", "in/c.mp4", "disk", "in/deep"}
    named = tmp_path / "named"
    named.symlink_to(folder)
    assert outcomes(named)["own.mp4"] == ""


def test_a_tar_that_is_a_link_out_of_the_folder_is_refused_as_a_clip_is(tmp_path):
    tar(tmp_path / "outside" / "o.tar", {"secret.mp4": b"s"})
    tar(tmp_path / "f" / "own.tar", {"a.mp4": b"a"})
    tar(tmp_path / "f" / "in" / "inner.tar", {"b.mp4": b"b"})
    links = {
        "out": tmp_path / "outside/o.tar",
        "relative": "../outside/o.tar",
        "within": "in/inner.tar",
        "dead": "gone.tar",
    }
    for name, target in links.items():
        (tmp_path / "f" / f"{name}.tar").symlink_to(target)
    inside = {
        "own.tar/a.mp4": "",
        "in/inner.tar/b.mp4": "",
        "within.tar/b.mp4": "",
        "dead.tar": "the shard is not a file",
    }
    refused = outcomes(tmp_path / "f")
    for name in ("out", "relative"):
        assert refused.pop(f"{name}.tar").startswith("a link that leads out of the folder")
    assert refused == inside
    both = {"out.tar/secret.mp4": "", "relative.tar/secret.mp4": ""}
    assert outcomes(tmp_path / "f", tmp_path / "outside") == inside | both


def test_a_manifest_that_is_a_link_out_of_the_folder_stops(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "m.csv").write_text("file,group\na.mp4,g\n")
    (folder / "manifest.csv").symlink_to("../outside/m.csv")
    with pytest.raises(EarshotError, match="manifest.csv: a link that leads out .*; copy the file, or name its folder"):
        listed(folder)
    assert outcomes(folder, tmp_path / "outside") == {"a.mp4": ""}
    (folder / "manifest.csv").unlink()
    (folder / "other").write_text("file,group\na.mp4,h\n")
    (folder / "manifest.csv").symlink_to("other")  # within
    assert listed(folder)[0][0].group == "h"


@pytest.mark.parametrize("exchange", ["file", "folder", "pipe", "absent"])
def test_a_clip_that_is_exchanged_after_listing_is_refused(tmp_path, exchange):
    folder = touch(tmp_path / "f", "in/a.mp4")
    secret = touch(tmp_path / "g", "a.mp4") / "a.mp4"
    secret.write_bytes(b"secret")
    (clip,), (path,) = listed(folder)[0], (folder / "in" / "a.mp4",)
    if exchange == "folder":
        path.unlink(), path.parent.rmdir(), path.parent.symlink_to(secret.parent)
    else:
        path.unlink()
        {"file": lambda: path.symlink_to(secret), "pipe": lambda: os.mkfifo(path), "absent": lambda: None}[exchange]()
    with pytest.raises(OSError):
        open_without_links(clip.path)
    result = decode_request(Request(clip.path, 0, 6, DecodeOptions.__new__(DecodeOptions)))
    assert result["refusal"][0] == ("unreadable" if exchange == "absent" else "unsupported")


def test_a_json_that_is_a_link_out_of_the_folder_is_not_read(tmp_path):
    folder = touch(tmp_path / "f", "a.mp4")
    (tmp_path / "outside.json").write_text('{"group": "outside"}')
    (folder / "a.json").symlink_to(tmp_path / "outside.json")
    assert listed(folder)[0][0].group == ""


# Names


CLASHING = st.lists(st.text("ab _", min_size=1, max_size=2), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CLASHING, min_size=1, max_size=4))
def test_no_two_clips_share_a_name_and_a_unique_name_stays(tmp_path_factory, in_process, shards):
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


def sample(files: dict[str, bytes | dict], tmp_path: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
    """The group and the annotations of each clip of one tar."""
    tar(tmp_path / "tars" / "0.tar", files)
    (clips,) = listed(tmp_path / "tars")
    assert all(clip.refusal is None for clip in clips)
    return {clip.source.removeprefix("0.tar/"): (clip.group, clip.annotations) for clip in clips}


G, H = {"group": "g"}, {"group": "h"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a0.video.mp4": b"", "a0.meta.json": G}, {"a0.video.mp4": "g"}),
        ({"a0.mp4": b"", "a0.meta.json": G}, {"a0.mp4": "g"}),
        ({"a0.video.mp4": b"", "a0.json": G}, {"a0.video.mp4": "g"}),
        ({"in.x/a0.video.mp4": b"", "in.x/a0.meta.json": G, "in.y/a0.json": H}, {"in.x/a0.video.mp4": "g"}),
        ({"./a0.video.mp4": b"", "a0.META.JSON": G}, {"./a0.video.mp4": "g"}),
        ({"a0.mp4": b"", "a0.json": G, "a0.more.json": H}, {"a0.mp4": "g"}),
        ({"a0.mp4": b"", "a0.json": {}, "a0.more.json": H}, {"a0.mp4": "h"}),
        ({"a0.video.mp4": b"", "a0.video.json": G, "a0.json": H}, {"a0.video.mp4": "g"}),
        ({"a0.left.mp4": b"", "a0.right.mp4": b"", "a0.json": G}, {"a0.left.mp4": "g", "a0.right.mp4": "g"}),
        ({"a0.mp4": b"", "a0.audio.wav": b"", "a0.boxes.json": b"[1]"}, {"a0.mp4": ""}),
        ({"my.1.mp4": b"", "my.1.json": G, "my.2.mp4": b"", "my.2.json": H}, {"my.1.mp4": "g", "my.2.mp4": "h"}),
        ({"my.1.mp4": b"", "my.1.json": G, "my.2.mp4": b""}, {"my.1.mp4": "g", "my.2.mp4": ""}),
        ({"my.1.mp4": b"", "my.1.json": {}, "my.2.json": G}, {"my.1.mp4": ""}),
    ],
)
def test_a_sample_has_the_name_up_to_the_first_dot(tmp_path, files, expected):
    assert {name: group for name, (group, _) in sample(files, tmp_path).items()} == expected


def test_a_sample_has_its_class_from_a_file_with_its_name(tmp_path):
    files = {"a0.video.mp4": b"", "a0.txt": b"a dog", "b.mp4": b"", "b.cls": b"7", "c.x.mp4": b"", "c.x.txt": b"own"}
    result = {name: words for name, (_, words) in sample(files | {"c.txt": b"of all"}, tmp_path).items()}
    assert result == {"a0.video.mp4": ("a dog",), "b.mp4": ("7",), "c.x.mp4": ("own",)}


def test_a_json_that_belongs_to_no_clip_is_counted(tmp_path):
    files = {"a.mp4": b"", "b.json": {}, "x/c.JSON": b"no json", "my.1.mp4": b"", "my.2.mp4": b"", "my.3.json": G}
    for number in range(2):
        tar(tmp_path / "tars" / f"{number}.tar", files | {f"d{number}.json": b"[1]", "Thumbs.db": b""})
    (tmp_path / "tars" / "manifest.csv").write_text("file,group\n")
    text = (
        r"skipped 2 .db \(the first is 0.tar/Thumbs.db\), 8 .json without a clip \(the first is 0.tar/b.json\), "
        r"1 manifest.csv beside tars, whose groups come from the .json of each clip"
    )
    with pytest.warns(UserWarning, match=text) as warned:
        assert [len(shard) for shard in listed(tmp_path / "tars")] == [3, 3]
    assert len(warned) == 1


@pytest.mark.parametrize("zeros", [0, 1024, 3 << 20])
def test_tars_appended_to_one_another_keep_their_clips_and_sidecars(tmp_path, zeros):
    for number in range(3):
        tar(tmp_path / f"{number}.tar", {"0.mp4": b"%d" % number, f"{number}.x.mp4": b"", "0.json": {"group": number}})
    whole = (b"\0" * zeros).join((tmp_path / f"{number}.tar").read_bytes() for number in range(3))
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "all.tar").write_bytes(whole)
    (clips,) = listed(tmp_path / "tars")
    assert len(clips) == len({clip.clip_id for clip in clips}) == 6 and all(clip.refusal is None for clip in clips)
    named = [clip for clip in clips if clip.source.endswith("/0.mp4")]
    assert [(clip.group, whole[clip.offset : clip.offset + clip.size]) for clip in named] == [
        ("0", b"0"), ("1", b"1"), ("2", b"2"),
    ]  # fmt: skip
    (tmp_path / "tars" / "all.tar").write_bytes(whole + b"no tar" * 200)
    assert [clip.refusal for clip in listed(tmp_path / "tars")[0]][-1] == (
        "unreadable", "the shard is damaged or truncated",
    )  # fmt: skip


def test_links_in_a_tar_lead_to_their_member_and_never_out_of_it(tmp_path):
    tar(tmp_path / "tars" / "0.tar", {"in/a.mp4": b"video", "in/a.json": G, "b.mp4": b"other"})
    links = {
        "hard.mp4": (tarfile.LNKTYPE, "in/a.mp4", b"video"),
        "dotted.mp4": (tarfile.LNKTYPE, "./in/a.mp4", b"video"),
        "in/soft.mp4": (tarfile.SYMTYPE, "a.mp4", b"video"),
        "in/up.mp4": (tarfile.SYMTYPE, "../b.mp4", b"other"),
        "chain.mp4": (tarfile.LNKTYPE, "hard.mp4", b"video"),
        "gone.mp4": (tarfile.LNKTYPE, "missing.mp4", None),
        "self.mp4": (tarfile.SYMTYPE, "self.mp4", None),
        "out.mp4": (tarfile.SYMTYPE, "/etc/passwd", None),
    }
    with tarfile.open(tmp_path / "tars" / "0.tar", "a") as archive:
        for name, (kind, target, _) in (links | {"hard.json": (tarfile.LNKTYPE, "in/a.json", None)}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    data, (clips,) = (tmp_path / "tars" / "0.tar").read_bytes(), listed(tmp_path / "tars")
    by_name = {clip.source.removeprefix("0.tar/"): clip for clip in clips}
    for name, (_, target, content) in links.items():
        clip = by_name[name]
        if content is None:
            assert clip.refusal == ("unsupported", f"a link to {target}, which is not in the tar")
        else:
            assert (clip.refusal, data[clip.offset : clip.offset + clip.size]) == (None, content)
    assert by_name["hard.mp4"].group == "g"


def test_keys_that_repeat_in_every_shard_give_clips_of_their_own(tmp_path):
    for number in range(3):
        tar(tmp_path / "tars" / f"{number}.tar", {"0.mp4": b"", "1.mp4": b"", f"once{number}.mp4": b""})
    ids = [clip.clip_id for shard in listed(tmp_path / "tars") for clip in shard]
    assert len(set(ids)) == 9 and {"once0", "once1", "once2"} < set(ids)
    assert {clip_id.split("-")[0] for clip_id in ids} == {"0", "1", "once0", "once1", "once2"}


def test_tars_lie_in_folders_and_may_be_links_within_and_without(tmp_path):
    tar(tmp_path / "tars" / "deep" / "er" / "part-7.tar", {"a.mp4": b""})
    blob = tmp_path / "cache" / "ab" / ("0" * 30)  # as DVC's cache has it
    tar(blob, {"b.mp4": b""})
    (tmp_path / "tars" / "00003.tar").symlink_to(blob)
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
    first, second = listed(touch(tmp_path / "tars", "00001.tar.xz"))
    assert (first[0].source, first[0].refusal) == ("00000.tar/a.mp4", None)
    assert (second[0].source, second[0].refusal[0]) == ("00001.tar.xz", "unsupported")


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
    params = load_params(ExtractParams, PARAMS, ["extract.frame_size=32", "extract.window_s=1.0"]).extract
    ledger = []
    with Decoder(params.decode_timeout_s, (clip.path for clip in clips)) as decoder:
        scenes = list(extract_clips(clips, decoder, params, 0, ledger))
    assert [(row.source, row.status) for row in ledger] == [(f"in/00005.tar/{name}", "kept") for name in files]
    assert [scene.group for scene in scenes] == ["--PJHxphWEs", "mkv", "avi"]
    assert all(scene.duration == pytest.approx(5, abs=0.2) for scene in scenes)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text("a./\\\n\udce9é ", max_size=5), max_size=6), st.sampled_from(["", ".mp4", ".json"]))
def test_members_may_be_called_anything(tmp_path_factory, in_process, names, suffix):
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
