"""Makes NumPy arrays of a bundle's tensors, from their bytes or from slices.

A tensor of fixed size is stored as its elements, in row-major order and little-endian; an
element of less than a byte takes a whole byte. NumPy lacks bfloat16, float8 and int4; the package
ml_dtypes adds them, as in TensorFlow itself. Strings become arrays of `bytes` objects.

Source: ``BundleReader::GetValue`` in ``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from distckpt.core.tensorflow_format.index_reader import BundleEntry
from distckpt.errors import UnsupportedOptionError

Array = np.ndarray[Any, np.dtype[Any]]

# TensorFlow's quantized types are integers with another name.
_QUANTIZED = {
    "qint8": "int8",
    "quint8": "uint8",
    "qint16": "int16",
    "quint16": "uint16",
    "qint32": "int32",
}
_NUMPY = frozenset(
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
) | frozenset(("bool", "float16", "float32", "float64", "complex64", "complex128"))


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns NumPy's type for TensorFlow's type `name`.

    Raises:
      UnsupportedOptionError: There is none: it is a variant or a resource, or ml_dtypes is too old.
    """
    name = _QUANTIZED.get(name, name)
    if name in _NUMPY:
        return np.dtype(name)
    if name == "string":
        return np.dtype(object)
    import ml_dtypes

    if not hasattr(ml_dtypes, name):
        raise UnsupportedOptionError(f"A tensor of the type {name} has no NumPy counterpart.")
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def decode(entry: BundleEntry, data: bytes) -> Array:
    """Returns the array stored in `data`, the bytes of `entry` after their checksum was verified.

    Raises:
      UnsupportedOptionError: Its type has no NumPy counterpart.
    """
    if entry.dtype == "string":
        return _strings(entry, data)
    return from_elements(entry.dtype, entry.shape, data)


def from_elements(dtype: str, shape: Sequence[int], data: bytes) -> Array:
    """Returns the array with the elements `data`, of a type of fixed size."""
    array = np.frombuffer(data, numpy_dtype(dtype)).reshape(tuple(shape))
    return array if sys.byteorder == "little" else array.byteswap()


def assemble(
    dtype: str, shape: Sequence[int], parts: Sequence[tuple[Sequence[tuple[int, int]], Array]]
) -> Array:
    """Returns a tensor assembled from slices.

    Args:
      dtype: TensorFlow's name of the type.
      shape: The dimensions of the whole.
      parts: For each slice its (start, length) in every dimension, and its array.
    """
    whole = np.empty(tuple(shape), numpy_dtype(dtype))
    for extents, array in parts:
        whole[tuple(slice(start, start + length) for start, length in extents)] = array
    return whole


def parse_extents(spec: str, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Returns (start, length) for each dimension of a slice spec such as "6 4 0,2:-"."""
    ranges = spec.rpartition(" ")[2].split(":")
    return tuple(
        (0, size) if text == "-" else (int(text.partition(",")[0]), int(text.partition(",")[2]))
        for text, size in zip(ranges, shape, strict=True)
    )


def _strings(entry: BundleEntry, data: bytes) -> Array:
    """Returns strings: `data` has their lengths, a checksum of four bytes, then their contents."""
    count, position = math.prod(entry.shape), 0
    lengths = []
    for _ in range(count):
        length, position = _varint(data, position)
        lengths.append(length)
    position += 4 if data else 0
    array = np.empty(count, object)
    for number, length in enumerate(lengths):
        array[number] = data[position : position + length]
        position += length
    return array.reshape(entry.shape)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
