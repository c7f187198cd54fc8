"""The messages in the index of a tensor bundle, with the fields that distckpt needs.

Messages within messages are declared as bytes: many tensors have equal shapes, which are then
decoded only once.

Source: ``tensor_bundle.proto`` in ``tensorflow/core/protobuf``; ``tensor_shape.proto``,
``tensor_slice.proto`` and ``versions.proto`` in ``tensorflow/core/framework``.
"""

from __future__ import annotations

import math

from distckpt.core.tensorflow_format.protobuf_wire import (
    BOOL,
    BYTES,
    FIXED32,
    INT32,
    INT64,
    Field,
    message_class,
)
from distckpt.core.tensorflow_format.slice_encoding import MOST_DIMENSIONS, Extents

LITTLE_ENDIAN = 0
VERSION = 1  # kTensorBundleVersion

Header = message_class(
    "BundleHeaderProto",
    Field("num_shards", 1, INT32),
    Field("endianness", 2, INT32),
    Field("version", 3, BYTES, presence=True),
)
Version = message_class(
    "VersionDef",
    Field("producer", 1, INT32),
    Field("min_consumer", 2, INT32),
    Field("bad_consumers", 3, INT32, repeated=True),
)
Entry = message_class(
    "BundleEntryProto",
    Field("dtype", 1, INT32),
    Field("shape", 2, BYTES, presence=True),
    Field("shard_id", 3, INT32),
    Field("offset", 4, INT64),
    Field("size", 5, INT64),
    Field("crc32c", 6, FIXED32),
    Field("slices", 7, BYTES, repeated=True),
)
_Shape = message_class(
    "TensorShapeProto",
    Field("dim", 2, BYTES, repeated=True),
    Field("unknown_rank", 3, BOOL),
)
_Dim = message_class("Dim", Field("size", 1, INT64))
_Slice = message_class("TensorSliceProto", Field("extent", 1, BYTES, repeated=True))
_Extent = message_class(
    "Extent", Field("start", 1, INT64), Field("length", 2, INT64, presence=True)
)


def decode_shape(encoded: bytes) -> tuple[int, ...]:
    """Returns the dimensions in an encoded ``TensorShapeProto``.

    Raises:
      ValueError: They are not all known, or are more or larger than TensorFlow can handle.
      google.protobuf.message.DecodeError: `encoded` is not such a message.
    """
    shape = _Shape.FromString(encoded)
    if len(shape.dim) > MOST_DIMENSIONS:
        raise ValueError(f"it has {len(shape.dim)} dimensions")
    dimensions = tuple(int(_Dim.FromString(dim).size) for dim in shape.dim)
    if shape.unknown_rank or any(size < 0 for size in dimensions):
        raise ValueError("its shape is not known")
    if math.prod(dimensions) >= 1 << 63:
        raise ValueError(f"its shape {dimensions} is too large")
    return dimensions


def decode_extents(encoded: bytes) -> Extents:
    """Returns the extents in an encoded ``TensorSliceProto``.

    Raises:
      google.protobuf.message.DecodeError: `encoded` is not such a message.
    """
    extents = [_Extent.FromString(extent) for extent in _Slice.FromString(encoded).extent]
    return tuple((e.start, e.length) if e.HasField("length") else None for e in extents)


def encode_shape(shape: tuple[int, ...]) -> bytes:
    """Returns the ``TensorShapeProto`` of known dimensions."""
    dimensions = [_Dim(size=size).SerializeToString() for size in shape]
    return bytes(_Shape(dim=dimensions).SerializeToString())


def encode_extents(extents: Extents) -> bytes:
    """Returns the ``TensorSliceProto`` of the extents of a slice."""
    parts = [_Extent() if e is None else _Extent(start=e[0], length=e[1]) for e in extents]
    return bytes(_Slice(extent=[part.SerializeToString() for part in parts]).SerializeToString())


def single_file_header() -> bytes:
    """Returns the header of a bundle of one data file."""
    version = Version(producer=VERSION).SerializeToString()
    header = Header(num_shards=1, endianness=LITTLE_ENDIAN, version=version)
    return bytes(header.SerializeToString())
