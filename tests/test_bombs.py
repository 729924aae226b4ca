"""Small files made to hang, fill or end a run: each is refused by name, and whatever lies beside it is kept."""

import io
import json
import os
import tarfile
import time
from pathlib import Path

import pytest

from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import ChildProcess, Failure, Limits
from earshot.corpus.ledger import Refusal
from earshot.media import tar_process
from earshot.media.clips import MediaFile, read_listing
from earshot.media.listing import list_shards

SECONDS = 20.0  # far above what a refusal takes on a busy machine, far below what the attacks took


def listed(folder: Path) -> list[MediaFile]:
    listings = folder.with_name(f"{folder.name}-listings")
    count = list_shards(folder, 100, lambda number: listings / f"{number}.json")
    return [clip for number in range(count) for clip in read_listing(listings / f"{number}.json")]


# Tars


def member(name: str, data: bytes = b"video", **fields: object) -> bytes:
    """A member of a tar with its data, padded to whole blocks."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf() + data + b"\0" * (-len(data) % 512)


def header(name: bytes, size: bytes, kind: bytes) -> bytes:
    """A header whose fields no library would write, with the right checksum."""
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157] = name, size, kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


NEGATIVE = b"\xff" * 9 + (-512 & 0xFFFFFF).to_bytes(3)  # -512 as a number of base 256
HUGE = b"%011o\0" % (1500 << 20)
SPARSE = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n25 GNU.sparse.name=b.mp4\n28 GNU.sparse.realsize=999\n"

TARS = {
    "a negative size": header(b"b.mp4", NEGATIVE, b"0"),
    "a negative size of a long name": header(b"b.mp4", NEGATIVE, b"L"),
    "a long name of 1.5 GB": header(b"././@LongLink", HUGE, b"L"),
    "a PAX header of 1.5 GB": header(b"pax", HUGE, b"x"),
    "a PAX header without numbers": header(b"pax", b"00000002000\0", b"x") + b"9" * 1024 + member("b.mp4"),
    "a PAX size that is none": member("pax", b"16 size=-512512\n", type=b"x") + member("b.mp4"),
    "a PAX sparse map without an end": member("pax", SPARSE, type=b"x")
    + header(b"b.mp4", b"00000001000\0", b"0")
    + b"999999999\n".ljust(512, b"\0"),
    "a PAX sparse map of words": member("pax", b"28 GNU.sparse.map=a,b,c,d,e\n", type=b"x") + member("b.mp4"),
}


@pytest.mark.parametrize("attack", TARS)
def test_a_hostile_tar_costs_itself_alone(tmp_path, attack):
    folder = tmp_path / "tars"
    folder.mkdir()
    end = b"\0" * 1024
    (folder / "1.tar").write_bytes(member("first.mp4") + TARS[attack] + end)
    os.truncate(
        folder / "1.tar", 3 << 20 if "GB" not in attack else 2 << 30
    )  # sparse: what the header asks for is there
    (folder / "2.tar").write_bytes(member("second.mp4") + end)
    start = time.monotonic()
    clips = listed(folder)
    assert time.monotonic() - start < SECONDS
    kept = [clip.source for clip in clips if clip.refusal is None]
    assert {"1.tar/first.mp4", "2.tar/second.mp4"} <= set(kept)
    refusals = [clip.refusal for clip in clips if clip.refusal]
    assert refusals or attack in ("a PAX header without numbers", "a PAX size that is none")


def test_a_tar_that_hangs_or_fills_its_reader_is_refused_and_the_next_is_listed(tmp_path, monkeypatch):
    folder = tmp_path / "tars"
    folder.mkdir()
    (folder / "1.tar").write_bytes(member("a.mp4", b"") * 40_000)
    (folder / "2.tar").write_bytes(member("second.mp4"))
    monkeypatch.setattr(tar_process, "MIN_SECONDS", 0.2)
    monkeypatch.setattr(tar_process, "BYTES_PER_SECOND", 1e12)
    first, second = listed(folder)
    assert first.refusal == ("timeout", "the shard is not listed within 0 s") and first.source == "1.tar"
    assert second.refusal is None
    monkeypatch.setattr(tar_process, "MAX_MEMORY", 40 << 20)
    monkeypatch.setattr(tar_process, "MIN_SECONDS", 60.0)
    first, second = listed(folder)
    assert first.refusal == ("too-large", "listing the shard needs more than 40 MB of memory")
    assert second.refusal is None


def test_members_whose_ids_collide_by_choice_get_ids_of_their_own(tmp_path):
    import hashlib

    folder = tmp_path / "tars"
    folder.mkdir()
    # Two links to one member, both of one name: location and name are equal. And a name that equals one with a hash.
    link = member("b.mp4", b"", type=tarfile.LNKTYPE, linkname="a.mp4")
    offset = 512
    digest = hashlib.sha256(f"1.tar/b.mp4\0{offset}".encode()).hexdigest()[:8]
    planted = member(f"b-{digest}.mp4")
    (folder / "1.tar").write_bytes(member("a.mp4") + link + link + planted + b"\0" * 1024)
    clips = listed(folder)
    assert len(clips) == 4 and len({clip.clip_id for clip in clips}) == 4
    assert all(clip.refusal is None for clip in clips)


def test_names_and_texts_without_measure_are_refused_with_the_clip_alone(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    with tarfile.open(folder / "1.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in {
            "x" * 50_000 + ".mp4": b"video",
            "a.mp4": b"video",
            "b.mp4": b"video",
            "b.json": json.dumps({"group": "g" * 50_000}).encode(),
            "c.mp4": b"video",
            "c.json": b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
            "d.mp4": b"video",
            "d.json": json.dumps({"annotations": ["short", "l" * 50_000]}).encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    refusals = {clip.source[-6:]: clip.refusal for clip in listed(folder)}
    assert refusals["/a.mp4"] is None
    assert refusals["xxxxxx"] == ("unsupported", "a name of 50,004 characters, expected at most 1,000")
    assert refusals["/b.mp4"] == ("unreadable", "its .json: a text of 50,000 characters, expected at most 10,000")
    assert refusals["/c.mp4"] == ("unreadable", "its .json: nested too deeply")
    assert refusals["/d.mp4"] == ("unreadable", "its .json: a text of 50,000 characters, expected at most 10,000")
    assert all(len(clip.source) < 2000 for clip in listed(folder))


# The guarded process


def _respond(size: int) -> bytes:
    return bytes(size)


def test_a_child_cannot_send_more_than_it_may_hold():
    with ChildProcess(_claim_gigabytes, Limits(10, memory=128 << 20)) as child:
        assert child.run(None) == Failure(hung=False)
    with ChildProcess(_respond, Limits(10, memory=128 << 20)) as child:
        assert child.run(1 << 20) == bytes(1 << 20)


def _claim_gigabytes(_: None) -> None:
    """What a compromised child could send: parts that together are larger than its memory."""
    import struct

    from earshot.core import subprocess_pool

    text = b'{"result": [{"__bytes__": 80000000}, {"__bytes__": 80000000}]}'
    subprocess_pool._stream.write(struct.pack("!I", len(text)) + text)
    for _ in range(160):
        subprocess_pool._stream.write(bytes(1_000_000))
    subprocess_pool._stream.flush()


# Images and sounds of benchmarks


def png(width: int, height: int) -> bytes:
    """A white PNG of one bit a pixel, written without its pixels in memory."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + kind + data + struct.pack("!I", zlib.crc32(kind + data))

    packed = zlib.compressobj(9)
    row = b"\0" + b"\xff" * -(-width // 8)
    data = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    header = struct.pack("!IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def large_jpeg(side: int) -> bytes:
    """A JPEG whose header states a large image; the data of a small one follow."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (64, 64)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = side.to_bytes(2) * 2
    return bytes(data)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(touched) (w) file closefile\nshowpage\n%%EOF\n"


def other_format(kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, kind)
    return file.getvalue()


IMAGES = {
    "a PNG of 30000 x 30000": (lambda: png(30_000, 30_000), "900000000 pixels"),
    "a JPEG of 20000 x 20000": (lambda: large_jpeg(20_000), "400000000 pixels"),
    "a PNG of 9000 x 9000": (lambda: png(9000, 9000), "9000 x 9000 pixels, expected at most 50 megapixels"),
    "an EPS called .jpg": (lambda: EPS, "not a JPEG or PNG"),
    "a GIF called .jpg": (lambda: other_format("GIF"), "not a JPEG or PNG"),
    "a TIFF called .jpg": (lambda: other_format("TIFF"), "not a JPEG or PNG"),
    "a WebP called .jpg": (lambda: other_format("WEBP"), "not a JPEG or PNG"),
    "nothing": (lambda: b"", "not a JPEG or PNG"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("attack", IMAGES)
def test_an_image_is_a_jpeg_or_png_of_a_size_that_its_header_states(tmp_path, attack, monkeypatch):
    from PIL import Image

    from earshot.evaluation.image_files import read_image
    from earshot.media.guarded_files import decode_image

    data, reason = IMAGES[attack]
    (tmp_path / "a.jpg").write_bytes(data())
    with pytest.raises(EarshotError, match=f"a.jpg: cannot be read as an image .*{reason}"):
        read_image(tmp_path / "a.jpg", 64, 64)
    ran = []
    monkeypatch.setattr("subprocess.check_call", lambda *arguments, **_: ran.append(arguments))
    with pytest.raises((OSError, ValueError, Image.DecompressionBombError), match=reason):
        decode_image(data())  # in this process, where nothing hinders Pillow
    assert not ran


def test_no_plugin_of_pillow_is_asked_for_the_frames_of_exhibits():
    from earshot.explanation.media import read_image

    for data in (EPS, other_format("GIF"), other_format("TIFF")):
        with pytest.raises(EarshotError, match="a frame is not an image"):
            read_image(data)


def wav(frames: int, rate: int, channels: int = 1) -> bytes:
    import struct

    size = frames * channels * 2
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * channels * 2, channels * 2, 16)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + size)
        + b"WAVEfmt "
        + struct.pack("<I", 16)
        + form
        + b"data"
        + struct.pack("<I", size)
    )


def flac(seconds: int, rate: int) -> bytes:
    """Silence as FLAC, a few kB an hour."""
    import numpy as np
    import soundfile

    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(seconds // 60):
            sound.write(np.zeros(60 * rate, np.int16))
    return file.getvalue()


SOUNDS = {
    "a WAV at 1 Hz": (lambda: wav(60_000, 1) + bytes(120_000), "1 samples a second, expected 4,000 to 192,000"),
    "a WAV at 655350 Hz": (lambda: wav(10**6, 655_350) + bytes(2 * 10**6), "655350 samples a second"),
    "a WAV of 1000 channels": (lambda: wav(10**5, 48_000, 1000) + bytes(2 * 10**8), "100,000 samples in 1000 channels"),
    "a FLAC of 2 h": (lambda: flac(7200, 8000), "7,200 s, expected at most 600"),
    "nothing": (lambda: b"", "cannot be read as sound"),
}


@pytest.mark.parametrize("attack", SOUNDS)
def test_a_recording_is_refused_by_its_header(tmp_path, attack):
    from earshot.media.guarded_files import read_sound_file

    data, reason = SOUNDS[attack]
    (tmp_path / "a.wav").write_bytes(data())
    with pytest.raises(EarshotError, match=reason):
        read_sound_file(tmp_path / "a.wav")


@pytest.mark.parametrize(("frames", "rate", "channels"), [(48_000 * 600, 48_000, 2), (192_000 * 300, 192_000, 1)])
def test_ten_minutes_of_stereo_are_within_the_limits(frames, rate, channels):
    from earshot.core.untrusted import check_sound

    check_sound(frames, channels, rate)


@pytest.mark.parametrize("rate", [655_350, 400_000, 1000])
def test_a_clip_whose_sound_has_an_extreme_rate_is_refused(tmp_path, rate):
    from odd_media import decode, render

    path = render(tmp_path / "a.mkv", "-c:v", "libx264", "-c:a", "flac", "-ar", str(rate), "-strict", "-2")
    with pytest.raises(Refusal) as refused:
        decode(path)
    assert refused.value.args == ("unsupported", f"sound of {rate} samples a second, expected 4000 to 192000")


def test_pipes_in_the_place_of_files_do_not_hang(tmp_path):
    from earshot.benchmarks.esc50 import read_table
    from earshot.core.text import read_lines
    from earshot.core.xml_files import parse_xml
    from earshot.corpus.ontology import read_ontology
    from earshot.evaluation.image_files import read_image
    from earshot.media.guarded_files import read_sound_file

    (tmp_path / "meta").mkdir()
    pipe = tmp_path / "meta" / "esc50.csv"
    os.mkfifo(pipe)
    readers = (
        lambda: read_image(pipe, 8, 8),
        lambda: read_sound_file(pipe),
        lambda: parse_xml(pipe),
        lambda: read_lines(pipe, "restore it"),
        lambda: read_ontology(pipe),
        lambda: read_table(tmp_path),
    )
    for read in readers:
        with pytest.raises(EarshotError, match="not a regular file"):
            read()


# Downloads


def test_a_source_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    from odd_media import ffmpeg

    from earshot.download.cutting import cut

    source = tmp_path / "a.mkv"
    color = "color=black:s=6000x4000:r=1:d=2"
    ffmpeg("-f", "lavfi", "-i", color, "-f", "lavfi", "-i", "sine=d=2", "-c:v", "mjpeg", source)
    with pytest.raises(Refusal) as refused:
        cut([source], 0, 2, tmp_path / "out.mp4")
    assert refused.value.args == ("too-large", "images of 6000 x 4000, expected at most 9.4 megapixels")


@pytest.mark.parametrize(("limit", "outcome"), [(250 << 20, ("refused", "too-large")), (1 << 30, ("kept", ""))])
def test_ffmpeg_has_the_memory_of_the_process_that_starts_it(tmp_path, limit, outcome):
    from odd_media import ffmpeg

    from earshot.core.subprocess_pool import guarded_map

    source = tmp_path / "a.mkv"
    color = "testsrc2=s=4096x2304:r=4:d=1"
    ffmpeg("-f", "lavfi", "-i", color, "-f", "lavfi", "-i", "sine=d=1", "-c:v", "mjpeg", source)
    ((_, result),) = guarded_map(_cut, [(source, tmp_path / "out.mp4")], Limits(60, memory=limit))
    assert tuple(result) == outcome


def _cut(item: tuple[Path, Path]) -> tuple[str, str]:
    from earshot.download.cutting import cut

    source, target = item
    try:
        cut([source], 0.1, 0.9, target)
    except Refusal as refusal:
        return "refused", refusal.reason
    return "kept", ""


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:99999/a.mp4", "http://[::1/a.mp4", "http://127.0.0.1:port/a.mp4"]
)
def test_an_address_that_cannot_be_asked_is_refused(address):
    from earshot.download.yt_dlp_client import check_address

    with pytest.raises(Refusal) as refused:
        check_address(address)
    assert refused.value.reason == "unsupported" and "not an address" in refused.value.detail


def test_a_fault_of_a_kind_that_nobody_foresaw_ends_no_run_and_refuses_no_clip(tmp_path, monkeypatch):
    from test_download import job_for

    from earshot.corpus.manifest import read_manifest
    from earshot.download import clips

    (tmp_path / "manifest.csv").write_text("url,start,end\nhttp://127.0.0.1:9/a.mp4,0,1\n")
    monkeypatch.setattr(clips, "_source", lambda *_: 1 / 0)
    (row,) = read_manifest(tmp_path)
    outcome = clips._download_clip(job_for(tmp_path), tmp_path, (row, ""))
    assert outcome == ("pending", "unclear", "ZeroDivisionError: division by zero")


# Documents


DEEP = 100_000
ALIASES = "a0: &a0 [xxxxxxxx, xxxxxxxx]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("[" * 500_000, "nested too deeply"),
        ("- " * 500_000, "nested too deeply"),
        ("a: " + "{a: " * 5000 + "1" + "}" * 5000, "nested too deeply"),
        (ALIASES, "its aliases make more than 1,048,576 characters of it"),
        ("a: &a [*a]", "cannot be read as YAML"),
        ("a: " + "x" * (2 << 20), "characters, expected at most 1,048,576"),
    ],
)
def test_yaml_that_is_deep_or_grows_is_one_line(tmp_path, text, reason):
    from earshot.core.yaml_files import read_yaml
    from earshot.results.runs import read_run

    (tmp_path / "params.yaml").write_text(text)
    start = time.monotonic()
    for read in (lambda: read_yaml(tmp_path / "params.yaml"), lambda: read_run("mine", {"params.yaml": text})):
        with pytest.raises(EarshotError, match=reason) as error:
            read()
        assert len(str(error.value)) < 1000 and "\n" not in str(error.value)
    assert "restore the file, or run the stages of the run again" in str(error.value)  # of the run
    assert time.monotonic() - start < SECONDS


def test_aliases_of_a_usual_size_are_read(tmp_path):
    from earshot.core.yaml_files import read_yaml

    (tmp_path / "params.yaml").write_text("a: &a {b: 1}\nc: *a\n")
    assert read_yaml(tmp_path / "params.yaml") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize("override", ["clusters=" + "[" * 5000, "clusters=&a [*a]"])
def test_an_override_that_is_deep_is_one_line(override):
    from earshot.core.params import split_override

    with pytest.raises(EarshotError, match="cannot be read as YAML"):
        split_override(override)


def test_json_that_is_deep_is_one_line(tmp_path):
    from earshot.core.json_files import read_json
    from earshot.corpus.ontology import read_ontology
    from earshot.evaluation.clips.images_with_sound import read_dataset
    from earshot.networks.files import read_architecture
    from earshot.results.runs import read_metrics, read_run

    text = "[" * DEEP + "]" * DEEP
    for name in ("vggss.json", "encoder.json", "metrics/voc.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    readers = (
        lambda: read_json(tmp_path / "encoder.json", "label"),
        lambda: read_ontology(tmp_path / "encoder.json"),
        lambda: read_dataset(tmp_path),
        lambda: read_architecture(tmp_path / "encoder.json"),
        lambda: read_metrics(tmp_path, "voc"),
        lambda: read_run("mine", {"metrics/voc.json": text}),
    )
    for read in readers:
        with pytest.raises(EarshotError, match="nested too deeply"):
            read()


def ontology(path: Path, classes: list[tuple[str, list[str]]]) -> Path:
    path.write_text(json.dumps([{"id": name, "name": name, "child_ids": below} for name, below in classes]))
    return path


def test_an_ontology_is_bounded_and_its_circles_are_found_in_one_pass(tmp_path):
    from earshot.corpus.ontology import read_ontology

    start = time.monotonic()
    many = [(f"c{n}", [f"c{n + 1}"] if n < 99_999 else []) for n in range(100_000)]
    with pytest.raises(EarshotError, match="holds 100,000 classes, expected at most 2,000"):
        read_ontology(ontology(tmp_path / "many.json", many))
    chain = [(f"c{n}", [f"c{n + 1}"] * 50 if n < 1999 else []) for n in range(2000)]
    assert read_ontology(ontology(tmp_path / "chain.json", chain)).distance("c0", "c1999") == 1999
    dense = [(f"c{n}", [f"c{m}" for m in range(n + 1, 1000)]) for n in range(1000)]
    assert read_ontology(ontology(tmp_path / "dense.json", dense)).distance("c0", "c999") == 1
    for classes in (
        [("a", ["a"])],
        [("a", ["b"]), ("b", ["a"])],
        [("r", ["a"]), ("a", ["b"]), ("b", ["c"]), ("c", ["a"])],
    ):
        with pytest.raises(EarshotError, match="is its own descendant"):
            read_ontology(ontology(tmp_path / "circle.json", classes))
    assert time.monotonic() - start < SECONDS


# Folders


def test_a_link_to_itself_costs_itself_alone(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    (folder / "self.mp4").symlink_to("self.mp4")
    (folder / "one.mp4").symlink_to("two.mp4")
    (folder / "two.mp4").symlink_to("one.mp4")
    (folder / "inner").symlink_to(".")
    refusals = {clip.source: clip.refusal for clip in listed(folder)}
    assert refusals["a.mp4"] is None
    assert {name for name, refusal in refusals.items() if refusal} == {"self.mp4", "one.mp4", "two.mp4", "inner"}


@pytest.mark.parametrize("table", ["x" * 200_000 + ",file\n", "file,group\na.mp4," + "g" * 50_000 + "\n"])
def test_a_manifest_with_a_field_without_measure_is_one_short_line(tmp_path, table):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"video")
    (folder / "manifest.csv").write_text(table)
    with pytest.raises(EarshotError, match=r"manifest.csv: line \d: ") as error:
        listed(folder)
    assert len(str(error.value)) < 500


def test_nothing_planted_beside_an_output_is_in_its_way(tmp_path):
    from earshot.core.files import link_tree

    source, target, elsewhere = tmp_path / "source", tmp_path / "target", tmp_path / "elsewhere"
    for folder in (source, target, elsewhere):
        folder.mkdir()
        (folder / "a").write_text(folder.name)
    (tmp_path / ".target.placing").write_text("a file")
    (tmp_path / ".target.replaced").symlink_to(elsewhere)
    (tmp_path / ".target.x.placing").symlink_to(elsewhere)
    (tmp_path / ".target.y.placing").write_text("a file")
    link_tree(source, target)
    assert (target / "a").read_text() == "source" and (elsewhere / "a").read_text() == "elsewhere"
    link_tree(elsewhere, target)
    assert (target / "a").read_text() == "elsewhere"
    assert not list(tmp_path.glob(".target.*.placing"))


# Tables


def test_released_proposals_that_unpack_without_measure_are_one_line(tmp_path, monkeypatch):
    import numpy as np
    import scipy.io

    from earshot.evaluation.images import released_proposals

    names = np.array([["000005"]], object)
    boxes = np.empty((1, 1), object)
    boxes[0, 0] = np.zeros((4_000_000, 4))  # 128 MB in 130 kB
    scipy.io.savemat(tmp_path / "a.mat", {"images": names, "boxes": boxes}, do_compression=True)
    assert (tmp_path / "a.mat").stat().st_size < 200_000
    monkeypatch.setattr(
        released_proposals, "READING", Limits(60.0, memory=160 << 20, file_size=0, starts_processes=False)
    )
    with pytest.raises(EarshotError, match="a.mat: cannot be read .needs more than .* MB of memory"):
        list(released_proposals.read_released(tmp_path / "a.mat"))


@pytest.mark.parametrize("length", [20_000, 10**6])
def test_a_dictionary_of_parquet_is_not_multiplied(tmp_path, length):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from earshot.corpus.manifest import read_manifest

    rows = 1000
    table = pa.table({"path": ["a.mp4"] * rows, "start": [0] * rows, "end": [1] * rows, "group": ["g" * length] * rows})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 10_000
    expected = f"a.parquet, row 1: group: a text of {length:,} characters, expected at most 10,000"
    with pytest.raises(EarshotError, match=expected):
        list(read_manifest(tmp_path / "a.parquet"))


def test_a_parquet_that_needs_more_memory_than_a_list_may_take_is_one_line(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    from earshot.corpus import manifest

    rows = 3
    table = pa.table({"path": ["a.mp4"] * rows, "start": [0] * rows, "end": [1] * rows, "group": ["g" * 10**8] * rows})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    monkeypatch.setattr(manifest, "PARQUET_READING", Limits(60.0, memory=150 << 20))
    with pytest.raises(EarshotError, match=r"a.parquet: cannot be read as Parquet \(.*; write the file again"):
        list(manifest.read_manifest(tmp_path / "a.parquet"))
