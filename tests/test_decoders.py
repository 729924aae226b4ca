"""Our decoders give what torchvision's own functions give."""

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.io import ImageReadMode
from torchvision.io import decode_jpeg as torchvisions
from torchvision.io import decode_png as torchvisions_png

from earshot.media.guarded_files import decode_image
from earshot.networks.decoders import decode_jpeg

UNLOADED = """
import sys, torch
from earshot.networks.backbones import build_network
from earshot.networks.correspondence import build_correspondence
from earshot.networks.decoders import decode_jpeg
from earshot.networks.device import seed_generators
print(decode_jpeg(sys.stdin.buffer.read()).shape)
with torch.device("meta"):  # as networks are before their weights are read
    build_network("alexnet", classes=5, width=0.25, image_size=112, dropout=0.2)
    build_correspondence("ave", width=0.125, stride=2, image_size=64)
seed_generators(7)
drawn = torch.randn(3)
assert not {"torchvision", "torch._dynamo", "sympy"} & set(sys.modules)
torch.manual_seed(7)
assert torch.equal(drawn, torch.randn(3))
"""


def encoded(mode: str, kind: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(noise[..., 0].astype(np.uint16) * 251) if mode == "I;16" else Image.fromarray(noise)
    image.convert(mode).save(file, kind)
    return file.getvalue()


def pixels(decoded: dict) -> torch.Tensor:
    data = torch.frombuffer(bytearray(decoded["pixels"]), dtype=torch.uint8)
    return data.view(decoded["height"], decoded["width"], 3).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_is_torchvisions(mode):
    jpeg = encoded(mode, "JPEG")
    theirs = torchvisions(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), mode=ImageReadMode.RGB)
    ours = decode_jpeg(jpeg)
    assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy()) and ours.shape == (23, 31, 3)
    assert torch.equal(pixels(decode_image(jpeg)), theirs)


def test_a_jpeg_is_never_turned():
    image = Image.fromarray(np.zeros((23, 31, 3), np.uint8))
    tags = Image.Exif()
    tags[0x0112] = 6  # orientation: turned by a quarter
    file = io.BytesIO()
    image.save(file, "JPEG", exif=tags)
    assert decode_jpeg(file.getvalue()).shape == (23, 31, 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "I;16"])
def test_a_png_is_torchvisions(mode):
    data = encoded(mode, "PNG")
    theirs = torchvisions_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
    if theirs.dtype == torch.uint16:
        theirs = (theirs.to(torch.float64) / 257).round().to(torch.uint8)
    assert torch.equal(pixels(decode_image(data)), theirs)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "1", "P"])
def test_a_damaged_png_raises(mode):
    data = encoded(mode, "PNG")
    pixels = data.index(b"IDAT") + 4
    for damaged in (
        data[: pixels + 10] + bytes([data[pixels + 10] ^ 0x55]) + data[pixels + 11 :], data[: len(data) // 2],
        data[: pixels - 8] + data[-12:], b"no image", b"",
    ):  # fmt: skip
        with pytest.raises((OSError, ValueError)):
            decode_image(damaged)


def test_what_is_no_jpeg_raises():
    jpeg = encoded("RGB", "JPEG")
    for data in (b"", b"no image", jpeg[: len(jpeg) // 2], jpeg[:-20], encoded("RGB", "PNG")):
        with pytest.raises(ValueError, match=f"^{len(data)} bytes are no whole JPEG$"):
            decode_jpeg(data)


def test_decoding_loading_and_seeding_import_neither_torchvision_nor_torchs_compiler():
    command = [sys.executable, "-c", UNLOADED]
    done = subprocess.run(command, input=encoded("RGB", "JPEG"), capture_output=True, check=True)
    assert done.stdout == b"(23, 31, 3)\n"
