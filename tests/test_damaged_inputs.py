"""Damaged and odd inputs of later stages: they are read right, or the error is one line that names the file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from earshot.benchmarks.voc import BENCHMARK as VOC
from earshot.core.errors import EarshotError
from earshot.evaluation.image_files import read_image, read_whole_image
from earshot.labels.textons import read_luma
from earshot.scenes.table import frames_in, read_row_groups
from earshot.scenes.writing import Scene, write_scenes
from earshot.sound.table import CLIP_COLUMNS, window_batches

# Images.


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """A PNG of 16 bits, (height, width, channels)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = zlib.compress(b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_sixteen_bits_has_its_colors_whatever_its_name(tmp_path, name, channels):
    pixels = np.random.default_rng(channels).integers(0, 65536, (20, 30, channels))
    pixels[0, :3] = [[0], [32768], [65535]]
    image = read_whole_image(write_png(tmp_path / name, pixels)).numpy().transpose(1, 2, 0)
    colors = pixels[:, :, :3] if channels > 2 else pixels[:, :, :1]
    assert image.dtype == np.uint8 and image.shape == (20, 30, 3)
    assert np.abs(image - colors * 255 / 65535).max() <= 0.5
    assert read_image(tmp_path / name, 16, 8).dtype.itemsize == 1


# Scenes.


def scene(number: int) -> Scene:
    jpeg, flac = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (16, 16), (9 * number, 80, 0)).save(jpeg, "JPEG")
    noise = np.random.default_rng(number).integers(-900, 900, 32000).astype(np.int16)
    soundfile.write(flac, noise, 16000, format="FLAC", subtype="PCM_16")
    frames = [jpeg.getvalue()] * 2
    return Scene(f"clip{number}", f"g{number}", 2.0, frames, [0.9, 1.1], flac.getvalue(), 16000, 1)


def read(shard: Path) -> int:
    """Read a shard as the stages describe and label do; the number of moments."""
    moments = 0
    for _, table in read_row_groups(shard, ["clip_id", "times", "frames"]):
        rows = np.repeat(np.arange(len(table)), 2)
        jpegs = frames_in(table, rows, np.tile([0, 1], len(table)))
        moments += sum(read_luma(jpeg).size > 0 for jpeg in jpegs)
    for _, table in read_row_groups(shard, CLIP_COLUMNS):
        list(window_batches(table, 3.75))
    return moments


def without_values(table: pa.Table, name: str) -> pa.Table:
    column = table[name].to_pylist()
    column[1] = [None] if isinstance(column[1], list) else None
    return table.set_column(table.schema.get_field_index(name), name, pa.array(column, table.schema.field(name).type))


@pytest.mark.parametrize("name", ["clip_id", "times", "frames", "sound"])
@pytest.mark.parametrize("fault", ["empty", "other type"])
def test_a_column_that_is_damaged_is_named(tmp_path, name, fault):
    shard = tmp_path / "a.parquet"
    write_scenes(shard, [scene(number) for number in range(3)])
    assert read(shard) == 6
    table = pq.read_table(shard)
    if fault == "empty":
        table = without_values(table, name)
    else:
        table = table.set_column(table.schema.get_field_index(name), name, pa.array([1, 2, 3]))
    pq.write_table(table, shard)
    with pytest.raises(EarshotError, match=rf"a\.parquet: cannot be read \(its column {name} .*run the stage extract"):
        read(shard)


def test_frames_without_times_are_refused(tmp_path):
    shard = tmp_path / "a.parquet"
    write_scenes(shard, [scene(0)])
    table = pq.read_table(shard)
    pq.write_table(table.set_column(table.schema.get_field_index("times"), "times", pa.array([[0.9]])), shard)
    with pytest.raises(EarshotError, match="expected one time a frame"):
        read(shard)


def test_damage_of_any_byte_of_a_shard_is_one_line_or_changes_a_value_only(tmp_path):
    shard = tmp_path / "a.parquet"
    write_scenes(shard, [scene(number) for number in range(3)])
    whole, drawn = shard.read_bytes(), np.random.default_rng(0)
    footer = int.from_bytes(whole[-8:-4], "little")
    refused = 0
    for number in range(40):
        damaged = bytearray(whole)
        first = len(whole) - 8 - footer if number % 2 else 0
        for place in drawn.integers(first, len(whole), drawn.choice([1, 8])):
            damaged[place] = drawn.choice([0, 128, 255, drawn.integers(256)])
        shard.write_bytes(damaged)
        try:
            read(shard)
        except EarshotError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 10


# Layers.


@pytest.mark.parametrize(
    ("layers", "repeated"),
    [("pool5,pool5", "pool5"), ("pool5,fc6,pool5", "pool5"), ("fc6,fc7,fc7", "fc7"), ("a,b,a,b", "a")],
)
def test_repeated_layers_are_refused(layers, repeated):
    with pytest.raises(ValueError, match=f"each name once; remove the second {repeated}"):
        VOC.params(inputs="images", layers=tuple(layers.split(",")), resize=256)
