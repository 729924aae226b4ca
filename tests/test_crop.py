"""The crop that a container states: what it displays of each image."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from odd_media import LOSSLESS, MP4, TONE, decode, ffmpeg, images, render

from earshot.media.crop import Crop, container_crop

MOV = "mov,mp4,m4a,3gp,3g2,mj2"
RED = "color=black:s=64x48:r=25:d=2,drawbox=x={x}:y={y}:w={w}:h={h}:c=red:t=fill"
NESTED = (b"moov", b"trak", b"mdia", b"minf", b"stbl")
# The displayed part of 64 x 48 pixels: x, y, width, height; and the offset of its center from that of the image.
PARTS = [
    ((16, 0, 32, 48), (0, 0)),
    ((0, 8, 64, 32), (0, 0)),
    ((0, 0, 32, 24), (-16, -12)),
    ((32, 24, 32, 24), (16, 12)),
]


def with_aperture(data: bytes, *numbers: int) -> bytes:
    """An MP4 file, whose header is at its end, with a box `clap` of these eight numbers in its video track."""
    out, at = b"", 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + size]
        if kind in NESTED:
            body = with_aperture(body, *numbers)
        elif kind == b"stsd" and body[12:16] in (b"avc1", b"mp4v"):
            entry = body[12:] + struct.pack(">I4s8i", 40, b"clap", *numbers)
            body = body[:8] + struct.pack(">I", len(entry) + 4) + entry
        out += struct.pack(">I4s", len(body) + 8, kind) + body
        at += size
    return out


def aperture_file(folder: Path, part: tuple, offset: tuple, suffix: str) -> Path:
    x, y, width, height = part
    plain = render(folder / "plain.mp4", *MP4, "-crf", 1, image=RED.format(x=x, y=y, w=width, h=height), sound=TONE)
    path = folder / "a.mp4"
    path.write_bytes(with_aperture(plain.read_bytes(), width, 1, height, 1, offset[0], 1, offset[1], 1))
    if suffix != "mp4":
        ffmpeg("-i", path, "-c", "copy", folder / f"a.{suffix}")
    return folder / f"a.{suffix}"


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(("part", "offset"), PARTS)
def test_only_the_displayed_part_is_taken(tmp_path, part, offset, suffix):
    path = aperture_file(tmp_path, part, offset, suffix)
    actual = images(decode(path, frame_size=24))
    _, _, width, height = part
    scale = 24 / min(width, height)
    assert actual.shape[1:] == (round(height * scale), round(width * scale), 3)
    assert np.abs(actual[:, 3:-3, 3:-3] - (254, 0, 0)).max() < 12
    plain = images(decode(tmp_path / "plain.mp4", frame_size=24))
    assert plain[..., 0].min() < 30  # without the crop there is black


@pytest.mark.parametrize(
    "numbers",
    [(32, 0, 48, 1, 0, 1, 0, 1), (0, 1, 0, 1, 0, 1, 0, 1), (64, 1, 48, 1, 0, 1, 0, 1), (32, 1, 48, 1, 999, 1, 0, 1),
     (-5, 1, 48, 1, 0, 1, 0, 1), (2**31 - 1, 1, 48, 1, 0, 1, 0, 1)],
)  # fmt: skip
def test_an_impossible_aperture_crops_nothing(tmp_path, numbers):
    plain = render(tmp_path / "plain.mp4", *MP4, image=RED.format(x=0, y=0, w=9, h=9), sound=TONE)
    path = tmp_path / "a.mp4"
    path.write_bytes(with_aperture(plain.read_bytes(), *numbers))
    with path.open("rb") as file:
        assert container_crop(file, MOV, 0, 64, 48) == Crop()
        assert file.tell() == 0
    assert images(decode(path)).shape == images(decode(plain)).shape


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">I4sQ", 1, b"moov", 2**64 - 1),  # leads to a place that no file has
        struct.pack(">I4s", 3, b"moov"),  # smaller than itself
        struct.pack(">I4s", 8, b"moov") * 5000,
        b"".join(struct.pack(">I4s", 8 * depth, b"moov") for depth in range(5000, 0, -1)),
    ],
)
def test_boxes_of_impossible_sizes_crop_nothing(header):
    assert container_crop(io.BytesIO(header), MOV, 0, 64, 48) == Crop()


@pytest.mark.parametrize("options", [MP4, LOSSLESS])
def test_a_file_without_a_crop_stays_whole(tmp_path, options):
    path = render(tmp_path / f"a.{'mp4' if options is MP4 else 'mkv'}", *options, image=RED.format(x=0, y=0, w=9, h=9))
    assert images(decode(path)).shape[1:] == (48, 64, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_damaged_header_crops_nothing_or_something_that_fits(tmp_path, suffix):
    data = aperture_file(tmp_path, *PARTS[2], suffix).read_bytes()
    chance = np.random.default_rng(1)
    kind = MOV if suffix == "mp4" else "matroska,webm"
    for number in range(300):
        damaged = bytearray(data)
        for at in chance.integers(len(data), size=20):
            damaged[at] = chance.integers(256)
        path = tmp_path / f"{number}"
        path.write_bytes(damaged[: int(chance.integers(len(data)))])
        with path.open("rb") as file:
            crop = container_crop(file, kind, 0, 64, 48)
        assert crop == Crop() or crop.fits(64, 48)
