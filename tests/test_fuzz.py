"""Fuzzing: whatever the bytes of a file from a stranger, its reader gives a value or an error of one line.

Each reader gets mutations of small files that it accepts. It runs in a process of its own, with little memory and an
audit hook, so that a crash, a hang, growth, and a file or connection elsewhere are found too. The input that failed is
kept: the message names it.

    python -m pytest tests/test_fuzz.py                                            some examples of each reader
    FUZZ_SECONDS=3600 python -m pytest -m slow -n auto tests/test_fuzz.py          an hour, divided among the readers
"""

import io
import json
import os
import resource
import signal
import sys
import tarfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from conftest import without_children
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from earshot.core.errors import EarshotError

EXAMPLES = 6  # of each reader in the short form
SECONDS = 10.0  # of processor time for one example; ordinary ones take milliseconds
MEMORY = 1 << 30  # bytes above those of this process
FIXED = "file"  # the name of the file that is damaged


@dataclass(frozen=True)
class Reader:
    """A reader of files: what it does with a file, small files that it accepts, and words of their format.

    `raises` are its errors, `known` files with which it once failed. `guarded`: it runs in a child process whose memory
    is limited, and may use it all.
    """

    read: Callable[[Path], Any]
    seeds: Callable[[], Sequence[bytes]]
    words: Sequence[bytes] = ()
    raises: tuple[type[Exception], ...] = (EarshotError,)
    guarded: bool = False
    name: str = FIXED
    known: Sequence[bytes] = ()


NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"9" * 30, b"0" * 5000, b"18446744073709551616", b"-9223372036854775809")
EDGES = [value.to_bytes(size, order) for size in (1, 2, 4, 8) for order in ("big", "little")
         for value in (0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), 2 ** (8 * size) - 1)]  # fmt: skip


# What is read.


def tar_seeds() -> list[bytes]:
    files = {
        "a.mp4": b"video",
        "a.json": b'{"group": "g"}',
        "b/c.mp4": b"video",
        "x" * 120 + ".mp4": b"",
        "d.txt": b"a",
    }
    seeds = []
    for kind in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=kind) as tar:
            for name, data in files.items():
                if kind == tarfile.USTAR_FORMAT and len(name) > 100:
                    continue
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.pax_headers = {"comment": "é", "GNU.sparse.name": "s"} if kind == tarfile.PAX_FORMAT else {}
                tar.addfile(member, io.BytesIO(data))
            link = tarfile.TarInfo("link.mp4")
            link.type, link.linkname = tarfile.SYMTYPE, "a.mp4"
            tar.addfile(link)
        seeds.append(file.getvalue()[:8192])
    return seeds


def read_tar(file: Path) -> None:
    from earshot.media.clips import from_json
    from earshot.media.tar_process import list_tar

    from_json(list_tar((file, file.name))["clips"])


def read_sidecar(file: Path) -> None:
    from earshot.media.sidecars import annotations_of, failure, read_json

    values = read_json(file.read_bytes())
    failure(values)
    annotations_of(values, "beside")


SIDECAR = {
    "group": "g", "annotations": ["a", "b"], "url": "https://youtu.be/abcdefghijk", "caption": "c", "label": "x;y",
    "status": "failed_to_download", "error_message": "e", "yt_meta_dict": {"info": {"id": "x", "webpage_url": "u"}},
}  # fmt: skip


def read_folder(file: Path) -> None:
    from earshot.media.folders import clips_in_folder

    for name in ("a.mp4", "b.mp4", "inner/a.mp4"):
        (file.parent / name).parent.mkdir(exist_ok=True)
        (file.parent / name).touch()
    list(clips_in_folder(file.parent))


def read_list(file: Path) -> None:
    from earshot.corpus.manifest import read_manifest

    for row in read_manifest(file):
        asdict(row)


LISTS = (
    b"url,start,end,group,annotations\nhttps://a.org/b,1.5,3,g,dog;cat\n",
    b"path;start;end\nb.mp4;0;1\n./c.mp4;1;2\n",
    b"# YTID, start_seconds, end_seconds, positive_labels\n--PJHxphWEs, 30.000, 40.000, \"/m/09x0r,/t/dd00088\"\n",
    b"---g-f_I2yQ,1,people marching,test\n",
    b"label,youtube_id,time_start,time_end,split\nabseiling,4YTwq0-73Y8,333,343,train\n",
)  # fmt: skip


def parquet_seeds() -> list[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    seeds = []
    for compression in ("none", "zstd"):
        file = io.BytesIO()
        columns = {"url": ["https://a.org/b"] * 3, "start": [0.5, 1, 2], "end": [2.0, 3, 4], "annotations": [["a"]] * 3}
        pq.write_table(pa.table(columns), file, compression=compression)
        seeds.append(file.getvalue())
    return seeds


def read_sound(file: Path) -> None:
    from earshot.media.guarded_files import read_sound_file

    read_sound_file(file)


def sound_seeds() -> list[bytes]:
    import soundfile

    seeds = []
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("AIFF", "PCM_24"),
    ):
        file = io.BytesIO()
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2))
        soundfile.write(file, noise, 8000, format=kind, subtype=subtype)
        seeds.append(file.getvalue())
    return seeds


def read_image(file: Path) -> None:
    from earshot.evaluation.image_files import read_image, read_whole_image

    read_image(file, 16, 8)
    read_whole_image(file)


def image_seeds() -> list[bytes]:
    seeds = []
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    for kind, mode, options in (
        ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}), ("PNG", "RGBA", {}),
        ("PNG", "P", {}), ("PNG", "1", {}), ("PNG", "I;16", {}),
    ):  # fmt: skip
        image = Image.fromarray(pixels)
        image = image.convert("L").convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
        file = io.BytesIO()
        image.save(file, kind, **options)
        seeds.append(file.getvalue())
    return seeds


def read_voc_xml(file: Path) -> None:
    from earshot.evaluation.images.voc_annotations import read_objects

    read_objects(file, ["dog", "cat"])


XML = (
    b"<annotation><size><width>500</width><height>375</height><depth>3</depth></size><object><name>dog</name>"
    b"<truncated>0</truncated><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>300</xmax>"
    b"<ymax>200</ymax></bndbox></object></annotation>",
    b"<?xml version='1.0' encoding='utf-16'?><annotation/>",
)


def read_localization(file: Path) -> None:
    from earshot.evaluation.clips.images_with_sound import read_dataset

    for folder, suffix in (("frames", "jpg"), ("audio", "wav")):
        (file.parent / folder).mkdir(exist_ok=True)
        (file.parent / folder / f"a_000001.{suffix}").touch()
    read_dataset(file.parent)


def read_recordings(file: Path) -> None:
    from earshot.benchmarks.esc50 import read_table

    (file.parent / "meta").mkdir(exist_ok=True)
    os.replace(file, file.parent / "meta" / "esc50.csv")
    read_table(file.parent)


RECORDINGS = "filename,fold,target,category,esc10,src_file,take\n" + "".join(
    f"{fold}-{take}-{target}.wav,{fold},{target},{name},True,1,{take}\n"
    for fold in range(1, 4)
    for target, name in ((0, "dog"), (41, "chainsaw"))
    for take in "AB"
)


def read_voc_lists(file: Path) -> None:
    from earshot.evaluation.images.voc_lists import read_dataset

    sets = file.parent / "ImageSets" / "Main"
    sets.mkdir(parents=True, exist_ok=True)
    for number, split in enumerate(("train", "val", "test")):
        (sets / f"{split}.txt").write_text(f"00000{number}\n")
        (sets / f"dog_{split}.txt").write_text(f"00000{number}  1\n")
    os.replace(file, sets / "dog_train.txt")
    read_dataset(file.parent)


def network_seeds() -> list[bytes]:
    from safetensors.numpy import save

    return [save({"output.weight": np.ones((4, 3), np.float32), "output.bias": np.ones(4, np.float32)}), save({})]


def read_network(file: Path) -> None:
    import torch
    from torch import nn

    from earshot.networks.files import _read_state

    with torch.device("meta"):
        network = nn.Sequential()
        network.output = nn.Linear(3, 4)
    _read_state(file, network, "the network", "write it again")


def read_labeler(file: Path) -> None:
    from earshot.labels.tensors import read_tensors

    read_tensors(file, {"output.weight": (4, None), "output.bias": (4,)})


def read_architecture(file: Path) -> None:
    from earshot.networks.files import read_architecture

    read_architecture(file)


ARCHITECTURES = (
    {"name": "alexnet", "classes": 4, "width": 0.1, "image_size": 64, "dropout": 0.5},
    {"name": "ave", "width": 0.1, "image_size": 64},
)


def proposal_seeds() -> list[bytes]:
    import scipy.io

    names, boxes = np.array([["000005"], ["000007"]], object), np.empty((2, 1), object)
    boxes[0, 0], boxes[1, 0] = np.ones((3, 4)), np.ones((2, 4), np.uint16)
    seeds = []
    for compressed in (False, True):
        file = io.BytesIO()
        scipy.io.savemat(file, {"images": names, "boxes": boxes}, do_compression=compressed)
        seeds.append(file.getvalue())
    return seeds


def read_proposals(file: Path) -> None:
    from earshot.evaluation.images.released_proposals import read_released

    list(read_released(file))


def read_caffemodel(file: Path) -> None:
    from earshot.networks.caffemodel import read_caffemodel

    read_caffemodel(file)


def caffemodel_seeds() -> list[bytes]:
    def field(number: int, data: bytes) -> bytes:
        key = number << 3 | 2
        return (bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])) + bytes([len(data)]) + data

    shape = field(7, field(1, bytes([2, 3])))
    blob = shape + field(5, np.ones(6, "<f4").tobytes())
    legacy = bytes([8, 1, 16, 3, 24, 1, 32, 2]) + field(5, np.ones(6, "<f4").tobytes())
    layers = [
        field(100, field(1, b"fc6") + field(2, kind) + field(7, blob) + field(7, legacy))
        for kind in (b"InnerProduct", b"Convolution")
    ]
    return [*layers, field(2, field(4, b"conv1") + bytes([40, 4]) + field(6, legacy))]


def read_params(file: Path) -> None:
    from conftest import PARAMS

    from earshot.core.params import load_params
    from earshot.core.yaml_files import read_yaml
    from earshot.params.extract import ExtractParams

    read_yaml(file)
    load_params(ExtractParams, file, [])
    load_params(ExtractParams, PARAMS, [])


def params_seeds() -> list[bytes]:
    from conftest import PARAMS

    return [PARAMS.read_bytes(), b"a: &a {b: 1}\nc: [*a, *a]\n"]


def read_recipe(file: Path) -> None:
    from earshot.results.recipes import with_foundation

    with_foundation(file)


def read_ontology(file: Path) -> None:
    from earshot.corpus.ontology import read_ontology

    read_ontology(file)


ONTOLOGY = [{"id": "/m/a", "name": "a", "child_ids": ["/m/b"]}, {"id": "/m/b", "name": "b", "child_ids": []}]


def read_published(file: Path) -> None:
    from earshot.download.published import read_published

    read_published(file)


def read_crop(file: Path) -> None:
    from earshot.media.crop import MATROSKA, MOV, container_crop

    with file.open("rb") as opened:
        for kind in (MOV, MATROSKA):
            container_crop(opened, kind, 0, 64, 48)


def media_seeds() -> list[bytes]:
    """An MP4 with a clean aperture and a Matroska with a crop, both without samples."""
    import struct

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", len(content) + 8, kind) + content

    entry = box(b"avc1", bytes(78) + box(b"clap", struct.pack(">8I", 60, 1, 40, 1, 0, 1, 0, 1)))
    table = box(b"stsd", struct.pack(">II", 0, 1) + entry)
    handler = box(b"hdlr", bytes(8) + b"vide" + bytes(13))
    track = box(b"trak", box(b"mdia", handler + box(b"minf", box(b"stbl", table))))
    crop = bytes([0x83, 0x81, 1, 0xE0, 0x84, 0x54, 0xCC, 0x81, 4])
    tracks = bytes([0x16, 0x54, 0xAE, 0x6B, 0x80 | len(crop) + 2, 0xAE, 0x80 | len(crop)]) + crop
    segment = bytes([0x18, 0x53, 0x80, 0x67, 0x80 | len(tracks)]) + tracks
    return [box(b"ftyp", b"isom") + box(b"moov", track), bytes([0x1A, 0x45, 0xDF, 0xA3, 0x80]) + segment]


def text(value: object) -> Callable[[], list[bytes]]:
    return lambda: [json.dumps(value).encode()]


JSON_WORDS = (
    b"[" * 3000,
    b"{" * 3000,
    b'{"a":' * 3000,
    b"null",
    b"NaN",
    b'"\\ud800"',
    b"1e999",
    b"[]",
    b"{}",
    b"\\u0000",
)
TABLE_WORDS = (
    b"\n",
    b"\r",
    b",",
    b";",
    b"\t",
    b'"',
    b"'",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"../",
    b"/",
    b"=",
    b"#",
    b"~",
)
MAPPING = {"about": "a", "lists": [{"address": "https://a.org/b", "sha256": "0" * 64, "bytes": 5}]}
MANY = b"0" * 5000

READERS = {
    "tar": Reader(read_tar, tar_seeds, (b"L", b"x", b"30 GNU.sparse.major=1\n", b"19 size=-512\n", bytes(512))),
    "sidecar": Reader(read_sidecar, text(SIDECAR), JSON_WORDS, (ValueError,)),
    "manifest of a folder": Reader(
        read_folder, lambda: [b"file,group,annotations\na.mp4,g,dog;cat\nb.mp4,h,\n"], TABLE_WORDS, name="manifest.csv",
        known=(b"file,group\n%s,g\n" % MANY,),
    ),
    "list": Reader(read_list, lambda: LISTS, TABLE_WORDS, known=(b"url,start,end\nhttps://a.org/b,-%s.5,3\n" % MANY,)),
    "list in parquet": Reader(read_list, parquet_seeds, (b"PAR1",), guarded=True),
    "published list": Reader(read_published, text(MAPPING), JSON_WORDS, name="a.json"),
    "ontology": Reader(
        read_ontology, text(ONTOLOGY), JSON_WORDS, known=(b'[{"id": "/m/a", "name": "a", "child_ids": ["%s"]}]' % MANY,)
    ),
    "sound": Reader(read_sound, sound_seeds, (b"RIFF", b"data", b"fmt ", b"LIST", b"fLaC", b"OggS", b"FORM")),
    "image": Reader(read_image, image_seeds, (b"\xff\xd8", b"\xff\xc0", b"IHDR", b"IDAT", b"PLTE", b"acTL")),
    "annotation": Reader(read_voc_xml, lambda: XML, (b"<!DOCTYPE a>", b"&#0;", b"<a>" * 3000, b"<![CDATA[")),
    "localization": Reader(
        read_localization, text([{"file": "a_000001", "class": "dog", "bbox": [[0.1, 0.2, 0.5, 0.9]]}]), JSON_WORDS,
        name="vggss.json", known=(b'[{"file": "%s", "class": "dog", "bbox": [[0.1, 0.2, 0.5, 0.9]]}]' % MANY,),
    ),
    "recordings": Reader(
        read_recordings, lambda: [RECORDINGS.encode()], TABLE_WORDS, known=(RECORDINGS.encode().replace(b"41", MANY),)
    ),
    "VOC lists": Reader(
        read_voc_lists, lambda: [b"000000  1\n", b"000000 -1\r\n"], TABLE_WORDS, known=(b"000000 %s\n" % MANY,)
    ),
    "network": Reader(read_network, network_seeds, (b'"data_offsets":[0,', b'"F32"', b'"BF16"', *JSON_WORDS)),
    "labeler": Reader(read_labeler, network_seeds, (b'"data_offsets":[0,', b'"F64"', *JSON_WORDS)),
    "architecture": Reader(
        read_architecture, lambda: [json.dumps(each).encode() for each in ARCHITECTURES], JSON_WORDS,
        name="encoder.json",
    ),
    "proposals": Reader(read_proposals, proposal_seeds, guarded=True),
    "caffemodel": Reader(
        read_caffemodel, caffemodel_seeds,
        known=(b'\x12-"\x05conv1(\x042"\x08\x01\x10\x03\0\x18\x01 \x02*\x18' + np.ones(6, "<f4").tobytes(),),
    ),
    "params.yaml": Reader(read_params, params_seeds, (b": ", b"- ", b"&a ", b"*a", b"<<: ", b"!!python/object:a ")),
    "recipe": Reader(
        read_recipe, lambda: [b"about: a\ncost: b\nreach: c\nparams: {seed: 1}\nonto: b\n"],
        (b": ", b"[", b"&a ", b"*a", b"!!"), name="a.yaml",
        known=(b"about: a\ncost: b\nreach: c\nparams: {%s: 1}\n" % MANY,),
    ),
    "crop": Reader(
        read_crop, media_seeds, (b"moov", b"clap", b"\x54\xbb\x84", b"\x01\xff\xff\xff\xff\xff\xff\xff"),
        known=(b"\0\0\0\x01free" + b"\xff" * 8,),
    ),
}  # fmt: skip


# How it is damaged.

KINDS = ("set", "insert", "delete", "repeat", "flip", "cut", "word", "number")


@st.composite
def mutations(draw: st.DrawFn, reader: Reader, seeds: Sequence[bytes]) -> bytes:
    """The bytes of a seed after one to six changes."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        kind, place = draw(st.sampled_from(KINDS)), draw(st.integers(0, len(data)))
        if kind == "set":
            value = draw(st.sampled_from(EDGES) | st.binary(min_size=1, max_size=8))
            data = data[:place] + value + data[place + len(value) :]
        elif kind in ("insert", "word"):
            words = reader.words if kind == "word" and reader.words else EDGES
            data = data[:place] + draw(st.sampled_from(words)) + data[place:]
        elif kind in ("delete", "repeat"):
            end = draw(st.integers(place, min(len(data), place + 600)))
            times = 0 if kind == "delete" else draw(st.sampled_from([2, 3, 200]))
            data = data[:place] + data[place:end] * times + data[end:]
        elif kind == "flip" and place < len(data):
            data = data[:place] + bytes([data[place] ^ 1 << draw(st.integers(0, 7))]) + data[place + 1 :]
        elif kind == "cut":
            data = data[:place]
        elif kind == "number":
            digits = [at for at, sign in enumerate(data) if 48 <= sign < 58]
            if digits:
                at = digits[place % len(digits)]
                data = data[:at] + draw(st.sampled_from(NUMBERS)) + data[at + 1 :]
    return data[: 1 << 20]


# How it runs.


def check(reader: Reader, data: bytes, folder: Path) -> None:
    """Read one file; raises for an error that is not the reader's own, or of more than a line, and for a slow one."""
    folder.mkdir(exist_ok=True)
    file = folder / reader.name
    file.write_bytes(data)
    begin = time.process_time()
    try:
        reader.read(file)
    except reader.raises as error:
        message = str(error)
        assert len(message) < 3000, f"a message of {len(message)} characters"
    except MemoryError:
        assert reader.guarded, "needs more memory than any file may"
    seconds = time.process_time() - begin
    assert seconds < SECONDS, f"took {seconds:.1f} s"


def fuzz(reader: Reader, seconds: float, folder: Path) -> None:
    """What the process does: check mutations of the seeds, for some examples or seconds."""
    seeds = list(reader.seeds())
    for seed in seeds:
        check(reader, seed, folder)
    data = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmData" in line).split()[1])
    resource.setrlimit(resource.RLIMIT_DATA, ((data << 10) + MEMORY, resource.RLIM_INFINITY))
    sys.addaudithook(lambda event, values: elsewhere(event, values, folder))
    for data in reader.known:
        check(reader, data, folder)
    end = time.monotonic() + seconds

    @hypothesis.settings(
        max_examples=EXAMPLES if not seconds else 500, deadline=None, database=None, derandomize=not seconds,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @given(mutations(reader, seeds))
    def run(data: bytes) -> None:
        folder.with_name("last").write_bytes(data)
        signal.alarm(int(SECONDS * 6))  # a hang ends the process
        check(reader, data, folder)

    run()
    while time.monotonic() < end:
        run()


WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def elsewhere(event: str, values: tuple, folder: Path) -> None:
    """The audit hook: raises for a file that is opened for writing elsewhere, a connection, and a program."""
    if event == "open" and isinstance(values[0], str) and (values[2] or 0) & WRITES:
        if not os.path.abspath(values[0]).startswith((str(folder.parent), os.devnull)):
            raise AssertionError(f"opens {values[0]}")
    elif event in ("socket.connect", "subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
        raise AssertionError(f"{event} {values!r:.200}")


def forked(name: str, seconds: float, folder: Path) -> str:
    """Fuzz a reader in a fork of this process; what went wrong, with the file that did it, or nothing.

    Each has a fork of its own, because the limits and the hook of one would hold for the next. A file that crashes the
    fork of a guarded reader must cost a line where the reader has a child; then another fork goes on.
    """
    end = time.monotonic() + seconds
    while (status := _forked(name, seconds, folder)) < 0 and READERS[name].guarded:
        check(READERS[name], (folder / "last").read_bytes(), folder / "again")
        seconds = end - time.monotonic()
        if seconds <= 0:
            return ""
    return f"{(folder / 'report').read_text()}\nstatus {status}, the file: {folder / 'last'}" if status else ""


def _forked(name: str, seconds: float, folder: Path) -> int:
    """The exit status of a fork that fuzzes a reader, negative for a signal."""
    report = folder / "report"
    report.touch()
    child = os.fork()
    if not child:
        status = 1
        try:
            warnings.simplefilter("ignore")
            with without_children():
                fuzz(READERS[name], seconds, folder / name)
            status = 0
        except BaseException:
            report.write_text(traceback.format_exc()[-5000:])
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("name", READERS)
def test_any_bytes_are_a_value_or_an_error_of_one_line(tmp_path, name):
    assert forked(name, 0.0, tmp_path) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_file_of_a_long_run_crashes_hangs_or_grows_its_reader(tmp_path, name):
    seconds = float(os.environ.get("FUZZ_SECONDS", "120")) / len(READERS)
    assert forked(name, seconds, tmp_path) == ""
