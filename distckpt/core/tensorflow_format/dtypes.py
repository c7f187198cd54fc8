"""TensorFlow's data types: their numbers in files, their names, the bytes of an element on disk.

Source: ``tensorflow/core/framework/types.proto``. Types of less than a byte take a byte each.
"""

from __future__ import annotations

from typing import NamedTuple


class DType(NamedTuple):
    """A data type: TensorFlow's name, and bytes per element, or None if that varies."""

    name: str
    size: int | None


BY_NUMBER: dict[int, DType] = {
    1: DType("float32", 4),
    2: DType("float64", 8),
    3: DType("int32", 4),
    4: DType("uint8", 1),
    5: DType("int16", 2),
    6: DType("int8", 1),
    7: DType("string", None),
    8: DType("complex64", 8),
    9: DType("int64", 8),
    10: DType("bool", 1),
    11: DType("qint8", 1),
    12: DType("quint8", 1),
    13: DType("qint32", 4),
    14: DType("bfloat16", 2),
    15: DType("qint16", 2),
    16: DType("quint16", 2),
    17: DType("uint16", 2),
    18: DType("complex128", 16),
    19: DType("float16", 2),
    20: DType("resource", None),
    21: DType("variant", None),
    22: DType("uint32", 4),
    23: DType("uint64", 8),
    24: DType("float8_e5m2", 1),
    25: DType("float8_e4m3fn", 1),
    26: DType("float8_e4m3fnuz", 1),
    27: DType("float8_e4m3b11fnuz", 1),
    28: DType("float8_e5m2fnuz", 1),
    29: DType("int4", 1),
    30: DType("uint4", 1),
    31: DType("int2", 1),
    32: DType("uint2", 1),
    33: DType("float4_e2m1fn", 1),
}
