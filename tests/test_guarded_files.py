"""Image and sound files of benchmarks are decoded in child processes, which see nothing but their bytes."""

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from earshot.core import sandbox
from earshot.core.errors import EarshotError
from earshot.core.subprocess_pool import SERVE
from earshot.media import guarded_files
from earshot.media.guarded_files import GuardedReader, read_image_file, read_mask_file, read_sound_file

needs_kernel = pytest.mark.skipif(sandbox.version() == 0, reason="this kernel has no Landlock")


def obey(data: bytes) -> dict[str, object]:
    """A decoder that files can take over: each says what it is to do."""
    match data.decode().split():
        case ["process"]:
            return {"process": os.getpid()}
        case ["crash"]:
            os.kill(os.getpid(), signal.SIGSEGV)
        case ["hang"]:
            time.sleep(60)
        case ["fill"]:
            return {"size": len(bytearray(8 << 30))}
        case ["read", path]:
            return {"text": Path(path).read_text()}
        case ["write", path]:
            Path(path).write_text("written")
        case ["run", path]:
            os.execv(path, [path])
    raise ValueError("damaged\nin many lines")


@pytest.fixture
def read(tmp_path):
    """Read a file of these bytes."""
    reader = GuardedReader(obey, "cannot be read as a test")

    def read_bytes(data: str) -> dict:
        (tmp_path / "file").write_text(data)
        return reader.read(tmp_path / "file")

    return read_bytes


def refusal(read, data: str) -> str:
    with pytest.raises(EarshotError) as refused:
        read(data)
    message = str(refused.value)
    assert message.endswith("; restore the file") and "\n" not in message
    return message


def test_one_child_serves_file_after_file(read):
    assert read("process")["process"] == read("process")["process"] != os.getpid()
    assert "file: cannot be read as a test (damaged); restore" in refusal(read, "bad")
    assert read("process")


def test_a_file_that_crashes_or_fills_its_decoder_costs_one_line(read):
    first = read("process")["process"]
    assert "(the decoder crashed (SIGSEGV))" in refusal(read, "crash")
    assert "(needs more than 1280 MB of memory)" in refusal(read, "fill")
    assert read("process")["process"] != first


def test_a_file_that_hangs_its_decoder_costs_its_time(read, monkeypatch):
    monkeypatch.setattr(guarded_files, "LIMITS", replace(guarded_files.LIMITS, seconds=0.3))
    assert "(not decoded within 0.3 s)" in refusal(read, "hang")


@needs_kernel
def test_a_file_that_takes_over_its_decoder_sees_and_changes_nothing(read, tmp_path):
    (tmp_path / "secret").write_text("secret")
    for attack in (f"read {tmp_path}/secret", f"read {tmp_path}/file", f"write {tmp_path}/new", "run /bin/true"):
        assert "Permission denied" in refusal(read, attack), attack
    assert not (tmp_path / "new").exists()


def test_threads_have_a_child_each_which_outlives_them(tmp_path):
    reader = GuardedReader(obey, "cannot be read as a test")
    (tmp_path / "file").write_text("process")
    processes = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as executor:
            results = executor.map(lambda _: reader.read(tmp_path / "file")["process"], range(60))
            processes.append(set(results))
    assert len(set.union(*processes)) <= 3


def test_a_missing_file_a_folder_and_one_that_is_too_large_are_named(tmp_path):
    reader = GuardedReader(obey, "cannot be read as a test", most=100)
    (tmp_path / "large").write_bytes(bytes(101))
    for name, reason in (("none", "No such file"), (".", "not a regular file"), ("large", "at most 100 bytes")):
        with pytest.raises(EarshotError, match=reason):
            reader.read(tmp_path / name)


def test_an_image_a_mask_and_a_sound_are_what_was_written(tmp_path):
    chances = np.random.default_rng(0)
    pixels = chances.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image_file(tmp_path / "a.png"), pixels)
    mask = Image.fromarray(pixels[..., 0] % 16).convert("P")
    mask.putpalette(list(range(48)))
    mask.save(tmp_path / "m.png", bits=4)
    assert np.array_equal(read_mask_file(tmp_path / "m.png"), pixels[..., 0] % 16)
    with pytest.raises(EarshotError, match="its mode is RGB, expected a palette"):
        read_mask_file(tmp_path / "a.png")
    sound = chances.integers(-30000, 30000, (4800, 2)).astype(np.int16)
    for kind in ("wav", "flac"):
        soundfile.write(tmp_path / f"a.{kind}", sound, 48_000, subtype="PCM_16")
        samples, rate = read_sound_file(tmp_path / f"a.{kind}")
        assert rate == 48_000 and samples.dtype == np.float32 and samples.flags.writeable
        assert np.array_equal(samples, sound / np.float32(32768))


def test_a_jpeg_of_four_inks_and_a_truncated_one(tmp_path):
    file = io.BytesIO()
    Image.new("CMYK", (40, 20), (10, 20, 30, 40)).save(file, "JPEG")
    (tmp_path / "a.jpg").write_bytes(file.getvalue())
    assert read_image_file(tmp_path / "a.jpg").shape == (20, 40, 3)
    (tmp_path / "a.jpg").write_bytes(file.getvalue()[:-200])
    with pytest.raises(EarshotError, match=r"cannot be read as an image .*[Tt]runcated"):
        read_image_file(tmp_path / "a.jpg")


@pytest.mark.parametrize("sent", [b"", b"\x80\x04", pickle.dumps((None, False)), pickle.dumps((None, False)) + b"\x80"])
def test_a_child_whose_parent_ends_while_it_starts_says_nothing(sent):
    reading, writing = os.pipe()
    command = [sys.executable, "-c", SERVE, str(writing)]
    done = subprocess.run(command, input=sent, pass_fds=[writing], capture_output=True)
    os.close(reading)
    os.close(writing)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_image_that_fits_is_decoded_once_and_another_each_time(tmp_path, monkeypatch):
    from earshot.evaluation import image_files

    files = [tmp_path / f"{name}.png" for name in "abc"]
    for number, file in enumerate(files):
        Image.new("RGB", (10, 10), (number, 0, 0)).save(file)
    decoded = []
    read = image_files.read_image_file
    monkeypatch.setattr(image_files, "read_image_file", lambda file: decoded.append(file.stem) or read(file))
    memory = image_files.ImageMemory(most=700)  # two of 300 bytes
    for _ in range(3):
        assert [int(memory.read(file)[0, 0, 0]) for file in files] == [0, 1, 2]
    assert "".join(decoded) == "abccc"
