"""Reads the weights of a .caffemodel: the binary form of NetParameter in src/caffe/proto/caffe.proto of BVLC/caffe.

Protocol buffers are a sequence of fields, each with a number, a type and a value. Only the fields below are read, and
no code of the file runs. Field numbers:

    NetParameter     2 layers (V1LayerParameter), 100 layer (LayerParameter)
    LayerParameter   1 name, 2 type (text), 7 blobs
    V1LayerParameter 4 name, 5 type (number), 6 blobs
    BlobProto        1-4 num, channels, height, width; 5 data (float32); 7 shape; 8 double_data (float64)
    BlobShape        1 dim
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from earshot.core.errors import EarshotError

Value = int | memoryview
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
V1_TYPES = {4: "Convolution", 14: "InnerProduct"}
CONVERTED = ("Convolution", "InnerProduct")
PARTS = ("weight", "bias")
COLORS = 3  # inputs of the first convolution, blue first


class Damaged(Exception):
    """The bytes are no protocol buffer of this kind."""


@dataclass(frozen=True)
class CaffeLayer:
    """A layer with weights: its name and type, and its blobs as float32 arrays."""

    name: str
    kind: str
    blobs: list[np.ndarray]


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """The weights of a network by names such as conv1.weight and fc6.bias, float32.

    Filters over colors, which Caffe has blue first, are turned to red first.

    Raises:
        EarshotError: the file is missing or no caffemodel, has no weights, or has weights of layers other than
            convolutions and inner products.
    """
    try:
        with path.open("rb") as file:
            tensors = dict(_tensors(path, _layers(memoryview(file.read()))))
    except OSError as error:
        raise EarshotError(f"{path}: cannot be read ({error.strerror}); give a .caffemodel") from None
    except (Damaged, ValueError, IndexError, UnicodeDecodeError) as error:
        raise EarshotError(f"{path}: is no complete caffemodel ({error}); download it again") from None
    if not tensors:
        raise EarshotError(f"{path}: holds no weights; give the .caffemodel, not the .prototxt")
    return tensors


def _tensors(path: Path, layers: Iterable[CaffeLayer]) -> Iterator[tuple[str, Tensor]]:
    for layer in layers:
        if layer.kind not in CONVERTED:
            expected = f"expected {' and '.join(CONVERTED)} alone"
            raise EarshotError(f"{path}: {layer.name} is of type {layer.kind}, {expected}; use weights without it")
        for part, blob in zip(PARTS, layer.blobs, strict=False):
            name = f"{layer.name}.{part}"
            yield name, torch.from_numpy(_as_torch(name, blob, layer.kind, part))


def _as_torch(name: str, blob: np.ndarray, kind: str, part: str) -> np.ndarray:
    """A blob in torch's shape; old files pad every shape to four dimensions with ones in front."""
    if part == "bias":
        return blob.reshape(-1)
    dimensions = 2 if kind == "InnerProduct" else 4
    if blob.ndim < dimensions or set(blob.shape[:-dimensions]) - {1}:
        raise Damaged(f"{name} has the shape {blob.shape}, expected {dimensions} dimensions")
    shape: tuple[int, ...] = blob.shape[-dimensions:]
    values = blob.reshape(shape)
    # Copied, because torch takes no array with negative strides, and an empty one keeps them in ascontiguousarray.
    return values[:, ::-1].copy() if kind == "Convolution" and shape[1] == COLORS else values


def _layers(net: memoryview) -> Iterator[CaffeLayer]:
    for number, value in _fields(net):
        if number == 100:
            yield from _layer(_bytes(value), name=1, kind=2, blobs=7)
        elif number == 2:
            yield from _layer(_bytes(value), name=4, kind=5, blobs=6)


def _layer(message: memoryview, *, name: int, kind: int, blobs: int) -> Iterator[CaffeLayer]:
    """The layer, if it has blobs."""
    names: dict[int, str] = {name: "", kind: ""}
    arrays = []
    for number, value in _fields(message):
        if number in names:
            names[number] = V1_TYPES.get(value, str(value)) if isinstance(value, int) else bytes(value).decode()
        elif number == blobs:
            arrays.append(_blob(_bytes(value)))
    if arrays:
        yield CaffeLayer(names[name], names[kind], arrays)


def _blob(message: memoryview) -> np.ndarray:
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    parts: list[np.ndarray] = []
    for number, value in _fields(message):
        if number in (1, 2, 3, 4) and isinstance(value, int):
            legacy[number] = value
        elif number == 7:
            shape = list(_dimensions(_bytes(value)))
        elif number in (5, 8):  # packed, or one value
            parts.append(np.frombuffer(_bytes(value), "<f4" if number == 5 else "<f8").astype(np.float32))
    values = np.concatenate([np.empty(0, np.float32), *parts])
    return values.reshape(shape if shape is not None else [legacy.get(number, 0) for number in (1, 2, 3, 4)])


def _dimensions(message: memoryview) -> Iterator[int]:
    for number, value in _fields(message):
        if number == 1 and isinstance(value, int):
            yield value
        elif number == 1:
            place, packed = 0, _bytes(value)
            while place < len(packed):
                size, place = _varint(packed, place)
                yield size


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """The number and the value of each field: an int, or the bytes of a text, a message, numbers or one number."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, place = _varint(message, place)
            yield number, value
            continue
        if wire == BYTES:
            size, place = _varint(message, place)
        elif wire in (FIXED32, FIXED64):
            size = 4 if wire == FIXED32 else 8
        else:
            raise Damaged(f"wire type {wire} of field {number}")
        if place + size > len(message):
            raise Damaged(f"field {number} ends {place + size - len(message)} bytes after its message")
        yield number, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise Damaged("a number of more than ten bytes")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise Damaged("a number where bytes are expected")
    return value
