"""Arrow columns built directly from bytes and numbers.

This copies once instead of three times, and avoids pandas, which pyarrow would import to inspect a Python list (half a
second in every process).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

MAX_OFFSETS = 2**31 - 1  # bytes in one column of one row group


def binary_column(parts: Sequence[bytes]) -> pa.Array:
    """A column of bytes. Raises OverflowError beyond 2 GB, the limit of Arrow's 32-bit offsets."""
    return _variable(pa.binary(), parts)


def text_column(texts: Sequence[str]) -> pa.Array:
    """A column of strings."""
    return _variable(pa.string(), [text.encode() for text in texts])


def number_column(values: Sequence[float], kind: pa.DataType) -> pa.Array:
    """A column of integers or floats of the given type."""
    array = np.asarray(values, kind.to_pandas_dtype())
    return pa.Array.from_buffers(kind, len(array), [None, pa.py_buffer(array)])


def list_column(lengths: Sequence[int], values: pa.Array) -> pa.Array:
    """A column of lists: `values` cut into pieces of these lengths."""
    offsets = pa.py_buffer(_offsets(lengths))
    return pa.Array.from_buffers(pa.list_(values.type), len(lengths), [None, offsets], children=[values])


def bytes_in(column: pa.Array | pa.ChunkedArray, places: Sequence[int]) -> list[memoryview]:
    """The values of a column of bytes at these places, not copied: each keeps the whole column in memory.

    A scalar of Arrow would copy its value twice.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # copies all
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].tolist()
    values = memoryview(b"" if data is None else data).toreadonly()
    return [values[ends[place] : ends[place + 1]] for place in places]


def lists_of_bytes_in(column: pa.Array | pa.ChunkedArray, places: Sequence[int]) -> list[list[memoryview]]:
    """The lists of a column of lists of bytes at these places, as `bytes_in` gives their values."""
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    ends = column.offsets.to_numpy().tolist()
    return [bytes_in(column.values, range(ends[place], ends[place + 1])) for place in places]


def _variable(kind: pa.DataType, parts: Sequence[bytes]) -> pa.Array:
    offsets = _offsets([len(part) for part in parts])
    return pa.Array.from_buffers(kind, len(parts), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))])


def _offsets(lengths: Sequence[int]) -> np.ndarray:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] > MAX_OFFSETS:
        raise OverflowError(f"a column of {offsets[-1]} bytes, more than {MAX_OFFSETS}")
    return offsets.astype(np.int32)
