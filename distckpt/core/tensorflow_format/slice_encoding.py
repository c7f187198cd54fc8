"""Slices of a tensor: as text for ``SaveV2``, and as the keys under which a bundle stores them.

*Extents* describe a part of a tensor: for each dimension (start, length), or None for all of it.
The *slice spec* of extents (0, 2), None of a tensor of shape (6, 4) is "6 4 0,2:-".

In an index, the entry of a partitioned tensor lists its slices, and each slice has an entry of its
own, whose key encodes name and extents such that keys sort as their parts do:

    0                   "what follows is a slice"; as a number
    name                with 00 as 00 FF, FF as FF 00; then 00 01
    number of dimensions
    start, length       for each, as signed numbers; 0, -1 for all of a dimension

    number              a byte: how many bytes follow; the number, big-endian
    signed number       big-endian, sign-extended to n bytes, with the first n bits inverted

Source: ``EncodeTensorNameSlice`` in ``tensorflow/core/util/saved_tensor_slice_util.cc``,
``tensorflow/core/lib/strings/ordered_code.cc``, ``tensorflow/core/framework/tensor_slice.cc``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

Extents = tuple[tuple[int, int] | None, ...]

MOST_DIMENSIONS = 254  # TensorShape::MaxDimensions()
_SPECIAL = re.compile(b"[\x00\xff]")
_ESCAPED = {b"\x00": b"\x00\xff", b"\xff": b"\xff\x00"}


def format_spec(shape: Sequence[int], extents: Extents) -> str:
    """Returns the slice spec of the part `extents` of a tensor of `shape`: "6 4 0,2:-"."""
    ranges = ":".join("-" if e is None else f"{e[0]},{e[1]}" for e in extents)
    return " ".join([*map(str, shape), ranges])


def parse_spec(spec: str) -> tuple[tuple[int, ...], Extents]:
    """Returns the shape and the extents from which `format_spec` made `spec`.

    Raises:
      ValueError: `spec` is not a slice spec.
    """
    *shape, ranges = spec.split(" ")
    extents = tuple(None if part == "-" else _extent(part) for part in ranges.split(":"))
    if len(extents) != len(shape):
        raise ValueError(f"{spec!r} is not a slice spec")
    return tuple(map(int, shape)), extents


def _extent(text: str) -> tuple[int, int]:
    start, length = map(int, text.split(","))
    return start, length


def slice_shape(shape: Sequence[int], extents: Extents) -> tuple[int, ...]:
    """Returns the dimensions of the part `extents` of a tensor of `shape`.

    Raises:
      ValueError: There is no such part.
    """
    if len(shape) != len(extents):
        raise ValueError(f"a slice of {len(extents)} dimensions of a tensor of {len(shape)}")
    result = []
    for size, extent in zip(shape, extents, strict=True):
        start, length = (0, size) if extent is None else extent
        if start < 0 or length < 0 or start + length > size:
            raise ValueError(f"a slice from {start} of length {length} of a dimension of {size}")
        result.append(length)
    return tuple(result)


def encode_slice_key(name: bytes, extents: Extents) -> bytes:
    """Returns the key of the slice `extents` of tensor `name` in an index."""
    key = bytearray(b"\x00" + _SPECIAL.sub(lambda m: _ESCAPED[m[0]], name) + b"\x00\x01")
    key += _encode_number(len(extents))
    for extent in extents:
        start, length = extent or (0, -1)
        key += _encode_signed(start)
        key += _encode_signed(length)
    return bytes(key)


def decode_slice_key(key: bytes) -> tuple[bytes, Extents]:
    """Returns the name and the extents from which `encode_slice_key` made `key`.

    Raises:
      ValueError: `key` is not the key of a slice.
    """
    if key[:1] != b"\x00":
        raise ValueError("it does not begin with a zero")
    name, position = _decode_string(key, 1)
    dimensions, position = _decode_number(key, position)
    if not 0 < dimensions <= MOST_DIMENSIONS:
        raise ValueError(f"it has {dimensions} dimensions")
    extents: list[tuple[int, int] | None] = []
    for _ in range(dimensions):
        start, position = _decode_signed(key, position)
        length, position = _decode_signed(key, position)
        extents.append((start, length) if length >= 0 else None)
    if encode_slice_key(name, tuple(extents)) != key:
        raise ValueError("it is not what a writer would have written")
    return name, tuple(extents)


def _decode_string(key: bytes, position: int) -> tuple[bytes, int]:
    parts = []
    while True:
        stop = position
        while stop < len(key) and 0 < key[stop] < 255:
            stop += 1
        parts.append(key[position:stop])
        pair = key[stop : stop + 2]
        position = stop + 2
        if pair == b"\x00\x01":
            return b"".join(parts), position
        if pair not in (b"\x00\xff", b"\xff\x00"):
            raise ValueError(f"the name is not terminated at byte {stop}")
        parts.append(pair[:1])


def _encode_number(number: int) -> bytes:
    size = (number.bit_length() + 7) // 8
    return bytes([size]) + number.to_bytes(size, "big")


def _decode_number(key: bytes, position: int) -> tuple[int, int]:
    size = key[position] if position < len(key) else 0
    stop = position + 1 + size
    if stop > len(key) or size > 8:
        raise ValueError(f"there is no number at byte {position}")
    return int.from_bytes(key[position + 1 : stop], "big"), stop


def _encode_signed(number: int) -> bytes:
    magnitude = ~number if number < 0 else number
    size = magnitude.bit_length() // 7 + 1
    # The first `size` of the size * 8 bits are the header; its last bit is the sign's.
    header = ((1 << size) - 1) << (size * 7)
    return ((number & ((1 << size * 8) - 1)) ^ header).to_bytes(size, "big")


def _decode_signed(key: bytes, position: int) -> tuple[int, int]:
    head = key[position : position + 2].ljust(2, b"\x00")
    negative = head[0] < 0x80
    bits = int.from_bytes(head, "big") ^ (0xFFFF if negative else 0)
    size = 16 - (bits ^ 0xFFFF).bit_length()  # the number of leading ones
    stop = position + size
    if stop > len(key) or not 0 < size <= 10:
        raise ValueError(f"there is no number at byte {position}")
    header = ((1 << size) - 1) << (size * 7)
    number = int.from_bytes(key[position:stop], "big") ^ header
    if negative:
        number -= 1 << (size * 8)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError(f"the number at byte {position} is too large")
    return number, stop
