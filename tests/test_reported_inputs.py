"""Inputs that users of other tools have reported in public, one line a case: what was reported, and what happens here.

Each case names the repository and the issue, or the spelling that a reported one is a neighbor of. A case expects the
value that is read, or words of the one-line error or refusal.
"""

import io
import json
import struct
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import PARAMS
from odd_media import LOSSLESS, MP4, SECONDS, decode, ffmpeg, images, render

from earshot.core.errors import EarshotError
from earshot.core.params import check_params, load_params, set_value, split_override
from earshot.core.yaml_files import read_yaml
from earshot.corpus.ledger import Refusal
from earshot.corpus.manifest import read_manifest, youtube_video
from earshot.media.clips import read_listing
from earshot.media.listing import list_shards
from earshot.params.schema import Pipeline, parameter_names

VIDEO = "BGQWPY4IigY"
YOUTUBE = f"https://www.youtube.com/watch?v={VIDEO}"


def outcome(read: Callable[[], Any]) -> Any:
    """What a reader returns, or the words of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return read()
        except (EarshotError, Refusal) as error:
            return str(error)


def check(actual: Any, expected: Any) -> None:
    if isinstance(expected, str) and isinstance(actual, str):
        assert expected in actual and "\n" not in actual
    else:
        assert actual == expected


# yt-dlp, youtube-dl: addresses of one video in all forms.

ADDRESSES = [
    ("yt-dlp#752: shorts", f"https://youtube.com/shorts/{VIDEO}", VIDEO),
    ("youtube-dl#30911: shorts with a share", f"https://youtube.com/shorts/{VIDEO}?feature=share", VIDEO),
    ("youtube-dl#30911: the short form", f"https://youtu.be/{VIDEO}", VIDEO),
    ("yt-dlp#3168: shorts, slash at the end", f"https://www.youtube.com/shorts/{VIDEO}/", VIDEO),
    ("a time", f"https://youtu.be/{VIDEO}?t=42s", VIDEO),
    ("a share id", f"https://youtu.be/{VIDEO}?si=AbC_-123", VIDEO),
    ("a playlist beside it", f"{YOUTUBE}&list=PL9TCweIMrgOc2wTg8bYcF8EeJmI7sLjB5&index=3", VIDEO),
    ("the video last", f"https://www.youtube.com/watch?list=PL9&v={VIDEO}", VIDEO),
    ("escaped by a web page", f"https://www.youtube.com/watch?feature=x&amp;v={VIDEO}", VIDEO),
    ("no scheme", f"youtube.com/watch?v={VIDEO}", VIDEO),
    ("music", f"https://music.youtube.com/watch?v={VIDEO}", VIDEO),
    ("a live stream's recording", f"https://www.youtube.com/live/{VIDEO}?feature=share", VIDEO),
    ("embedded without cookies", f"https://www.youtube-nocookie.com/embed/{VIDEO}?rel=0", VIDEO),
    ("mobile, upper case", f"HTTPS://M.YouTube.COM/watch?v={VIDEO}", VIDEO),
    ("an id that begins with a dash", "https://youtu.be/-BGQWPY4Iig", "-BGQWPY4Iig"),
    ("yt-dlp#11130: a playlist is no video", "https://www.youtube.com/playlist?list=PL9TCweIMrgOc2wTg8bYcF8E", None),
    ("yt-dlp#10981: a channel is no video", "https://www.youtube.com/@GirlCrafts/shorts", None),
    ("a channel's live stream", "https://www.youtube.com/embed/live_stream?channel=UC6nSFpj9HTCZ5t", None),
    ("another site with such a path", f"https://notyoutube.com/watch?v={VIDEO}", None),
    ("one letter short", f"https://youtu.be/{VIDEO[:-1]}", None),
]


@pytest.mark.parametrize(("address", "video"), [case[1:] for case in ADDRESSES], ids=[case[0] for case in ADDRESSES])
def test_an_address_of_youtube(address, video):
    assert youtube_video(address) == video


# video2dataset, img2dataset: lists of clips.

TIMES = "url,start,end\nhttps://a.org/a.mp4,"
LISTS = [
    ("video2dataset#229: a list of pairs as text", f'{TIMES}"[[264.8, 274.8]]",3\n', "start '[[264.8, 274.8]]'"),
    ("img2dataset#13: a caption with a comma, quoted", 'url,start,end,label\nhttps://a.org/a.mp4,0,1,"a, b"\n', 1),
    ("video2dataset#44: a line break in a quoted caption", 'url,start,end,label\nhttps://a.org/a.mp4,0,1,"a\nb"\n', 1),
    (
        "video2dataset#44: a line break, not quoted",
        "url,start,end,label\nhttps://a.org/a.mp4,0,1,a\nb\n",
        "1 fields, expec",
    ),
    ("mindone#133: a comma in a caption, not quoted", f"{TIMES}0,1,2\n", "4 fields, expected 3"),
    ("tabs", f"{TIMES}0,1\n".replace(",", "\t"), 1),
    ("semicolons of a spreadsheet", f"{TIMES}0,1\n".replace(",", ";"), 1),
    ("hours, minutes and seconds", f"{TIMES}00:01:02,00:01:12\n", "start '00:01:02': expected seconds"),
    ("a decimal comma", f'{TIMES}"1,5",3\n', "start '1,5': expected seconds"),
    ("thousands with a comma", f'{TIMES}"1,000","1,010"\n', "start '1,000': expected seconds"),
    ("milliseconds", f"{TIMES}5000000,5010000\n", "expected seconds from 0 to 1,000,000"),
    ("NaN", f"{TIMES}nan,3\n", "start 'nan': expected seconds"),
    ("None", f"{TIMES}None,3\n", "start 'None': expected seconds"),
    ("infinity", f"{TIMES}0,inf\n", "end 'inf': expected seconds"),
    ("an underscore", f"{TIMES}1_0,20\n", "start '1_0': expected seconds"),
    ("end before start", f"{TIMES}9,3\n", "end 3: expected more than start, 9"),
    ("the same time", f"{TIMES}3,3\n", "end 3: expected more than start, 3"),
    ("negative", f"{TIMES}-1,3\n", "start '-1': expected seconds"),
    ("an index column of pandas", ",url,start,end\n0,https://a.org/a.mp4,0,1\n", 1),
    ("upper-case columns", f"{TIMES}0,1\n".replace("url,start,end", "URL,Start,END"), 1),
    ("spaces around columns", f"{TIMES}0,1\n".replace("url,start,end", " url , start , end "), 1),
    ("Windows line ends", f"{TIMES}0,1\n".replace("\n", "\r\n"), 1),
    ("old Macintosh line ends", f"{TIMES}0,1\n".replace("\n", "\r"), 1),
    ("no line end at the end", f"{TIMES}0,1", 1),
    ("empty lines at the end", f"{TIMES}0,1\n\n\n,,\n", 1),
    ("a byte order mark", f"\ufeff{TIMES}0,1\n", 1),
    ("an empty file", "", "holds no rows"),
    ("only a header", "url,start,end\n", 0),
    ("a page instead of a list", "<!DOCTYPE html>\n<html><body>404</body></html>\n", "expected the rows of AudioSet"),
    (
        "a pointer of Git LFS",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        "expected the rows of",
    ),
    ("a row of a spreadsheet's error", f"{TIMES}0,1\n#NAME?,0,1\n", "is an error of a spreadsheet"),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in LISTS], ids=[case[0] for case in LISTS])
def test_a_list_of_clips(tmp_path, text, expected):
    (tmp_path / "list.csv").write_text(text, encoding="utf-8", newline="")
    check(outcome(lambda: len(list(read_manifest(tmp_path / "list.csv")))), expected)


COLUMNS = [
    ("img2dataset#4: numbers as texts", {"start": ["0"], "end": ["1.5"]}, 1),
    ("decimal numbers", {"start": pa.array([0, 1], pa.int64())[:1], "end": pa.array([1.5])}, 1),
    ("a missing time", {"start": [None], "end": [1.5]}, "start '': expected seconds"),
    ("NaN as a time", {"start": [float("nan")], "end": [1.5]}, "start 'nan': expected seconds"),
    ("video2dataset#229: a list of pairs", {"start": [[[264.8, 274.8]]], "end": [1.5]}, "found a list"),
    ("a category", {"start": [0], "end": [1], "label": pa.array(["cat"]).dictionary_encode()}, 1),
    ("a label as a number", {"start": [0], "end": [1], "label": [3]}, 1),
    (
        "labels as a mapping",
        {"start": [0], "end": [1], "label": [{"a": 1}]},
        "expected a text or a number, found a dict",
    ),
]


@pytest.mark.parametrize(("columns", "expected"), [case[1:] for case in COLUMNS], ids=[case[0] for case in COLUMNS])
def test_a_parquet_list(tmp_path, columns, expected):
    pq.write_table(pa.table({"url": ["https://a.org/a.mp4"], **columns}), tmp_path / "list.parquet")
    check(outcome(lambda: len(list(read_manifest(tmp_path / "list.parquet")))), expected)


# WebDataset, datasets: names in tars. Each case: the files of a tar, and the groups of its clips by name.

GROUP, OTHER = b'{"group": "g"}', b'{"group": "h"}'
TARS = [
    ("webdataset#237: dots, spaces", {"./2 Track 2.0 (Clean).mp4": b"x", "./2 Track 2.0 (Clean).json": GROUP}, ["g"]),
    ("datasets#7144: a dot in each name", {"22.05.mp4": b"x", "22.05.json": GROUP}, ["g"]),
    ("datasets#7144: two such", {"22.05.mp4": b"x", "22.05.json": GROUP, "22.06.mp4": b"x", "22.06.json": OTHER},
     ["g", "h"]),
    ("webdataset#288: two suffixes", {"S/a_VE1.cam.mp4": b"x", "S/a_VE1.json": GROUP}, ["g"]),
    ("refiner#124: a dot in a folder", {"train.v1/1.mp4": b"x", "train.v1/1.json": GROUP, "train.v1/2.mp4": b"x",
     "train.v1/2.json": OTHER}, ["g", "h"]),
    ("webdataset#407: not adjacent", {"1.mp4": b"x", "2.mp4": b"x", "1.json": GROUP, "2.json": OTHER}, ["g", "h"]),
    ("webdataset#11: XX.mp4.json and XX.info.json", {"X.mp4": b"x", "X.mp4.json": GROUP, "X.info.json": b"{}"}, ["g"]),
    ("webdataset#157: a name twice, the last counts", [("1.mp4", b"x"), ("1.json", OTHER), ("1.json", GROUP)], ["g"]),
    ("webdataset#20: two videos of a sample", {"f.left.mp4": b"x", "f.right.mp4": b"x", "f.json": GROUP}, ["g", "g"]),
    ("data#1144: a name with ./", {"./1.mp4": b"x", "1.json": GROUP}, ["g"]),
    ("a sound beside the video", {"1.mp4": b"x", "1.wav": b"x", "1.json": GROUP}, ["g"]),
    ("a thumbnail and subtitles", {"1.mp4": b"x", "1.jpg": b"x", "1.en.vtt": b"x", "1.json": GROUP}, ["g"]),
    ("resource forks of a Macintosh", {"1.mp4": b"x", "._1.mp4": b"x", "1.json": GROUP}, ["g"]),
    ("accents in two forms", {"é.mp4": b"x", "é.json": GROUP}, ["g"]),
]  # fmt: skip


@pytest.mark.parametrize(("files", "groups"), [case[1:] for case in TARS], ids=[case[0] for case in TARS])
def test_the_files_of_a_tar(tmp_path, files, groups):
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, content in files.items() if isinstance(files, dict) else files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    check(outcome(lambda: [clip.group for clip in listed(tmp_path)]), groups)


def listed(folder: Path) -> list:
    shards = list_shards(folder, 100, lambda number: folder / f".{number}", unmatched="stop")
    return [clip for number in range(shards) for clip in read_listing(folder / f".{number}")]


# FiftyOne, pixano: folders with a manifest. Each case: files, the manifest, and the groups in the order of the files.

FOLDERS = [
    ("semicolons", ["a.mp4"], "file;group\na.mp4;g\n", "utf-8", ["g"]),
    ("tabs", ["a.mp4"], "file\tgroup\na.mp4\tg\n", "utf-8", ["g"]),
    ("UTF-16 of a spreadsheet", ["a.mp4"], "file\tgroup\na.mp4\tg\n", "utf-16", ["g"]),
    ("UTF-16 without a mark", ["a.mp4"], "file,group\na.mp4,g\n", "utf-16-le", ["g"]),
    ("semicolons within annotations", ["a.mp4"], "file,group,labels\na.mp4,g,x;y\n", "utf-8", ["g"]),
    ("commas within a name, semicolons between", ["a, b.mp4"], "file;group\na, b.mp4;g\n", "utf-8", ["g"]),
    ("pixano#657: diacritics in another form", ["e\u0301.mp4"], "file,group\n\u00e9.mp4,g\n", "utf-8", ["g"]),
    ("eta#413: upper case", ["A.MP4"], "file,group\na.mp4,g\n", "utf-8", ["g"]),
    ("fiftyone#825: a name with its folder", ["d/a.mp4"], "filepath,group\nd/a.mp4,g\n", "utf-8", ["g"]),
    (
        "fiftyone#825: another folder",
        ["d/a.mp4"],
        "filepath,group\n/elsewhere/a.mp4,g\n",
        "utf-8",
        "names none of the 1",
    ),
    ("pixano#700: a.mp4 and a.mkv", ["a.mkv", "a.mp4"], "file,group\na.mp4,g\na.mkv,h\n", "utf-8", ["h", "g"]),
    (
        "a bar between columns",
        ["a.mp4"],
        "file|group\na.mp4|g\n",
        "utf-8",
        "separate columns by commas, semicolons or tabs",
    ),
    ("a column named video", ["a.mp4"], "video,group\na.mp4,g\n", "utf-8", "has the columns video, group, expected"),
    ("half a character of UTF-16", ["a.mp4"], b"\xff\xfef\x00i\x00l\x00e", "", "save the file as UTF-8"),
]


@pytest.mark.parametrize(
    ("files", "text", "encoding", "groups"), [case[1:] for case in FOLDERS], ids=[case[0] for case in FOLDERS]
)
def test_a_folder_with_a_manifest(tmp_path, files, text, encoding, groups):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "manifest.csv").write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    check(outcome(lambda: [clip.group for clip in listed(tmp_path)]), groups)


def test_thousands_of_leftovers_are_counted_not_refused(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    for number in range(500):
        for suffix in ("tmp", "nfo", "db"):
            (tmp_path / f"{number}.{suffix}").touch()
    with pytest.warns(UserWarning) as caught:
        assert len(listed(tmp_path)) == 1
    (message,) = {str(warning.message) for warning in caught}
    assert all(f"500 {suffix}" in message for suffix in (".tmp", ".nfo", ".db"))


# DVC: params.yaml.

VALUES = read_yaml(PARAMS)
SETS = [
    ("dvc#8466: 1e-5 without a point is a number", "pretrain.learning_rate=1e-5", 1e-5),
    ("spras#484: 1e-3", "pretrain.learning_rate=1e-3", 1e-3),
    ("1E-3", "pretrain.learning_rate=1E-3", 1e-3),
    ("dvc#5971: off is a text since YAML 1.2", "corpus.accept_pending=off", "is 'off', expected a valid boolean"),
    ("yes", "corpus.accept_pending=yes", "is 'yes', expected a valid boolean"),
    ("a whole number with an exponent", "clusters=3e1", "is 30.0, expected a valid integer"),
    ("sixty minutes", "download.timeout_s=1:30", "is '1:30', expected a valid number"),
    ("octal", "seed=010", "is '010', expected a valid integer"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in SETS], ids=[case[0] for case in SETS])
def test_a_parameter(text, expected):
    values = json.loads(json.dumps(VALUES))
    key, value = split_override(text)

    def read() -> Any:
        set_value(values, key, value, known=parameter_names())
        result = check_params(Pipeline, values, "params.yaml").model_dump()
        for name in key.split("."):
            result = result[name]
        return result

    check(outcome(read), expected)


FILES = [
    ("neurom#703: a tab", lambda text: text.replace("  manifest:", "\tmanifest:"), "cannot be read as YAML"),
    ("a byte order mark", lambda text: "\ufeff" + text, None),
    ("Windows line ends", lambda text: text.replace("\n", "\r\n"), None),
    ("a parameter twice", lambda text: f"{text}\nclusters: 3\n", "cannot be read as YAML"),
    ("conflict marks of Git", lambda text: f"<<<<<<< HEAD\n{text}", "cannot be read as YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "expected"), [case[1:] for case in FILES], ids=[case[0] for case in FILES])
def test_a_file_of_parameters(tmp_path, change, expected):
    (tmp_path / "params.yaml").write_bytes(change(PARAMS.read_text()).encode())
    check(outcome(lambda: load_params(Pipeline, tmp_path / "params.yaml").clusters), expected or VALUES["clusters"])


# PyAV, decord, torchcodec: media.

WIDE = f"testsrc2=s=64x48:r=25:d={SECONDS}"
COVER = ("-f", "lavfi", "-i", "color=red:s=16x16:r=1:d=1")


def turned(degrees: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        plain = render(folder / "plain.mp4", *MP4, image=WIDE)
        ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", folder / "a.mp4")
        return folder / "a.mp4"

    return make


def rendered(suffix: str, *options: object, **sources: str | None) -> Callable[[Path], Path]:
    return lambda folder: render(folder / f"a.{suffix}", *options, **sources)


def cut(folder: Path) -> Path:
    plain = render(folder / "plain.mp4", *MP4, "-bf", 2, "-g", 25, image=WIDE)
    ffmpeg("-ss", 1.3, "-i", plain, "-c", "copy", folder / "a.mp4")
    return folder / "a.mp4"


def earlier(folder: Path) -> Path:
    plain = render(folder / "plain.mp4", *MP4, image=WIDE)
    ffmpeg("-itsoffset", -1, "-i", plain, "-c", "copy", "-avoid_negative_ts", "disabled", folder / "a.mp4")
    return folder / "a.mp4"


def with_trailing_bytes(folder: Path) -> Path:
    path = render(folder / "a.mp4", *MP4, image=WIDE)
    path.write_bytes(path.read_bytes() + b"\0" * 5000)
    return path


def with_free_box(folder: Path) -> Path:
    path = render(folder / "a.mp4", *MP4, image=WIDE)
    path.write_bytes(path.read_bytes() + struct.pack(">I4s", 1008, b"free") + b"\0" * 1000)
    return path


TALL, FLAT = (64, 48), (48, 64)  # height, width
MEDIA = [
    ("decord#24, torchcodec#1173: turned by 90", turned(90), TALL),
    ("turned by 270, as nova#1494", turned(270), TALL),
    ("turned by 180", turned(180), FLAT),
    ("not turned", turned(0), FLAT),
    ("sound of a single channel at 8 kHz", rendered("mkv", *LOSSLESS, image=WIDE, sound="sine=f=440:r=8000:d=5"), FLAT),
    ("sound at 22.05 kHz in six channels", rendered("mkv", *LOSSLESS, "-ac", 6, "-ar", 22050, image=WIDE), FLAT),
    ("no sound", rendered("mp4", *MP4, image=WIDE, sound=None), "no-sound"),
    ("no video", rendered("m4a", "-c:a", "aac", image=None), "no-video"),
    ("a cut between key frames", cut, FLAT),
    ("times below zero", earlier, FLAT),
    ("ten bits", rendered("mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p10le", "-c:a", "flac", image=WIDE), FLAT),
    ("gray", rendered("mkv", "-c:v", "ffv1", "-pix_fmt", "gray", "-c:a", "flac", image=WIDE), FLAT),
    ("an alpha channel", rendered("mkv", "-c:v", "ffv1", "-pix_fmt", "yuva420p", "-c:a", "flac", image=WIDE), FLAT),
    ("pixels twice as wide", rendered("mkv", *LOSSLESS, "-vf", "setsar=2", image=WIDE), (48, 128)),
    ("zeros after the end", with_trailing_bytes, FLAT),
    ("a free box at the end", with_free_box, FLAT),
    ("2000 x 2000 with a limit of one megapixel, in MPEG-4", rendered("avi", "-c:v", "mpeg4", "-c:a", "mp2",
     image="testsrc2=s=2000x2000:r=1:d=3"), "too-large"),
    ("the same in MPEG-2", rendered("ts", "-c:v", "mpeg2video", "-c:a", "mp2", image="testsrc2=s=2000x2000:r=25:d=1"),
     "too-large"),
    ("the same in FFV1", rendered("mkv", *LOSSLESS, image="testsrc2=s=2000x2000:r=1:d=3"), "too-large"),
    ("the same in PNG", rendered("mov", "-c:v", "png", "-c:a", "pcm_s16le", image="testsrc2=s=2000x2000:r=1:d=2"),
     "too-large"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), [case[1:] for case in MEDIA], ids=[case[0] for case in MEDIA])
def test_a_media_file(tmp_path, make, expected):
    path = make(tmp_path)
    check(outcome(lambda: images(decode(path, frame_size=48)).shape[1:3]), expected)


def test_there_are_sixty_cases_and_more_each_with_neighbors():
    tables = (ADDRESSES, LISTS, COLUMNS, TARS, FOLDERS, SETS, FILES, MEDIA)
    assert sum(map(len, tables)) >= 100 and min(map(len, tables)) > 3
    assert all(len({case[0] for case in table}) == len(table) for table in tables)
