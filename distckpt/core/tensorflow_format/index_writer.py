"""Makes the index of a tensor bundle of one data file, with the same bytes as ``SaveV2``.

Source: ``BundleWriter`` in ``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from distckpt.core.tensorflow_format import bundle_proto as proto
from distckpt.core.tensorflow_format.leveldb_table import write_table
from distckpt.core.tensorflow_format.slice_encoding import (
    encode_slice_key,
    parse_spec,
    slice_shape,
)


class StoredTensor(msgspec.Struct, frozen=True, gc=False):
    """A tensor, or a slice of one, in the data file of a bundle.

    Attributes:
      key: The checkpoint key.
      spec: The slice spec, as "6 4 0,2:-"; "" for a whole tensor.
      dtype: The number of its type, see `dtypes.BY_NUMBER`.
      shape: The dimensions of what is stored: those of the slice, if there is a `spec`.
      offset: Where its bytes begin in the data file.
      size: How many bytes it takes there.
      crc32c: Their masked CRC32C.
    """

    key: str
    spec: str
    dtype: int
    shape: tuple[int, ...]
    offset: int
    size: int
    crc32c: int


class WrittenIndex(NamedTuple):
    """An index that this process has made, so it need not be decoded.

    Attributes:
      content: The file's bytes.
      stored: The entries with bytes, as `index_reader.read_index` would find them in `content`.
    """

    content: bytes
    stored: tuple[StoredTensor, ...]


def make_index(tensors: Iterable[StoredTensor]) -> WrittenIndex:
    """Returns the ``.index`` file of a bundle whose only data file has `tensors`.

    Raises:
      ValueError: A tensor or a slice occurs twice, or a slice is not one of its tensor.
    """
    entries: dict[bytes, bytes] = {}
    stored: dict[bytes, StoredTensor] = {}
    partitioned: dict[bytes, Any] = {}
    for given in tensors:
        key, tensor = given.key.encode("utf-8", "surrogateescape"), given
        if given.spec:
            key, tensor = _add_slice(partitioned, key, given)
        if key in stored:
            name = f"{given.key!r} {given.spec}".rstrip()
            raise ValueError(f"{name} occurs twice")
        stored[key] = tensor
        entries[key] = proto.Entry(
            dtype=tensor.dtype,
            shape=_encode_shape(tensor.shape),
            offset=tensor.offset,
            size=tensor.size,
            crc32c=tensor.crc32c,
        ).SerializeToString()
    for key, whole in partitioned.items():
        if key in stored:
            raise ValueError(f"{stored[key].key!r} occurs twice")
        entries[key] = whole.SerializeToString()
    content = write_table([(b"", proto.single_file_header()), *sorted(entries.items())])
    return WrittenIndex(content, tuple(stored[key] for key in sorted(stored)))


def _add_slice(
    partitioned: dict[bytes, Any], key: bytes, tensor: StoredTensor
) -> tuple[bytes, StoredTensor]:
    """Adds a slice to the entry of its tensor.

    Returns:
      The key of the slice's own entry, and the tensor as it is stored.
    """
    shape, extents = parse_spec(tensor.spec)
    if slice_shape(shape, extents) != tensor.shape:
        raise ValueError(f"{tensor.key!r} has the shape {tensor.shape}, not that of {tensor.spec}")
    if tensor.shape == shape:
        # The slice is the whole tensor, which TensorFlow stores as such.
        return key, msgspec.structs.replace(tensor, spec="")
    whole = partitioned.get(key)
    if whole is None:
        whole = partitioned[key] = proto.Entry(dtype=tensor.dtype, shape=_encode_shape(shape))
    if (whole.dtype, whole.shape) != (tensor.dtype, _encode_shape(shape)):
        raise ValueError(f"the slices of {tensor.key!r} are of different types or shapes")
    whole.slices.append(proto.encode_extents(extents))
    return encode_slice_key(key, extents), tensor


_encode_shape = functools.lru_cache(maxsize=4096)(proto.encode_shape)
