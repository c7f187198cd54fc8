"""Writes a tensor bundle without TensorFlow's op: faster, and with less memory.

``SaveV2`` copies everything through buffers of its own, and keeps all tensors of an op until its
end. Here each chunk of a tensor's own buffer is passed first to the checksum and then to the file,
while it is in the processor's cache, and each tensor is released as soon as it is written. The
files have the same bytes as those of ``SaveV2``, see ``BundleWriter`` in
``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.

Private TensorFlow API used here: ``EagerTensor._numpy`` and ``_shape_tuple``;
tests/unit/state/test_direct_writer.py would notice a change.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distckpt.core import layout
from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.bundle_index import StoredTensor, make_index
from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.runtime import disk_hints, portable
from distckpt.state.base import BundleWriter
from distckpt.state.shards import OpWriter

# How many bytes are passed to the checksum and then to the file: they stay in the cache meanwhile.
_CHUNK = 1 << 20
# Smaller tensors are gathered, so that one call writes many of them.
_SMALL = 64 * 1024
# After how many bytes the disk is to begin writing them.
_WRITEBACK = 16 << 20


class DirectWriter(BundleWriter):
    """Writes bundles directly, or by TensorFlow's op what only that can write.

    That is: to URLs, on a given device, on big-endian machines, and variants.

    Args:
      durable: Whether the caller will flush the files, so that the disk should begin at once.
    """

    def __init__(self, *, durable: bool) -> None:
        self._durable = durable
        self._other = OpWriter()

    def write(
        self,
        path: str,
        keys: Sequence[str],
        specs: Sequence[str],
        tensors: list[Any],
        device: str | None = None,
    ) -> None:
        """See the base class."""
        if device is None and _can_write(path, tensors):
            write_bundle(path, keys, specs, tensors, early=self._durable)
        else:
            self._other.write(path, keys, specs, tensors, device)


def _can_write(path: str, tensors: Sequence[Any]) -> bool:
    return (
        "://" not in path
        and sys.byteorder == "little"
        and all(tensor.dtype == tf.string or _size(tensor) is not None for tensor in tensors)
    )


def write_bundle(
    path: str, keys: Sequence[str], specs: Sequence[str], tensors: list[Any], *, early: bool
) -> None:
    """Writes tensors as the bundle ``path.index``, ``path.data-00000-of-00001``.

    Args:
      path: Prefix of the files, which do not exist.
      keys: The checkpoint key of each tensor; a key may occur more than once, with different
        slices.
      specs: The slice spec of each tensor, "" for a whole tensor.
      tensors: Eager tensors in host memory; each is taken out of the list once it is written.
      early: Whether the disk should begin at once, since the caller will flush the files.

    Raises:
      OSError: The storage failed.
    """
    stored: list[StoredTensor] = []
    target = layout.data_name(path, 0, 1)
    with _DataFile(target, sum(_size(t) or 0 for t in tensors), early=early) as file:
        for number, (key, spec) in enumerate(zip(keys, specs, strict=True)):
            tensor, tensors[number] = tensors[number], None
            offset = file.offset
            crc = (
                _write_strings(file, tensor) if tensor.dtype == tf.string else _write(file, tensor)
            )
            dtype, shape = tensor.dtype.as_datatype_enum, tensor._shape_tuple()
            size = file.offset - offset
            stored.append(StoredTensor(key, spec, dtype, shape, offset, size, crc32c.mask(crc)))
    with open(layout.index_name(path), "wb") as index:
        index.write(make_index(stored))


def _size(tensor: Any) -> int | None:
    """Returns how many bytes a tensor takes in a file; None if that depends on its content."""
    known = BY_NUMBER.get(tensor.dtype.as_datatype_enum)
    if known is None or known.size is None:
        return None
    size: int = known.size
    for dimension in tensor._shape_tuple():
        size *= dimension
    return size


class _DataFile:
    """A data file that is written from its beginning to its end."""

    def __init__(self, path: str, size: int, *, early: bool) -> None:
        self.offset = 0  # of what was given; `_pending` is not yet in the file
        self._path = path
        self._size = size
        self._early = early
        self._written = 0
        self._started = 0  # up to here, the disk has begun writing
        self._pending = bytearray()
        self._descriptor = -1

    def __enter__(self) -> _DataFile:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | portable.OPEN
        self._descriptor = os.open(self._path, flags, 0o666)
        try:
            disk_hints.preallocate(self._descriptor, self._size)
        except OSError as error:
            os.close(self._descriptor)
            raise self._with_path(error) from None
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                self._flush()
        finally:
            os.close(self._descriptor)

    def append(self, data: Any, crc: int) -> int:
        """Appends bytes, or an array of uint8; returns the checksum `crc` extended by them."""
        size = len(data)
        self.offset += size
        if size < _SMALL:
            self._pending += memoryview(data)
            if len(self._pending) >= _CHUNK:
                self._flush()
            return crc32c.extend(crc, data)
        self._flush()
        for start in range(0, size, _CHUNK):
            chunk = data[start : start + _CHUNK]
            crc = crc32c.extend(crc, chunk)
            self._put(chunk)
        return crc

    def _flush(self) -> None:
        if self._pending:
            self._put(self._pending)
            self._pending = bytearray()

    def _put(self, data: Any) -> None:
        view = memoryview(data)
        self._written += len(view)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise self._with_path(error) from None
        fresh = self._written - self._started
        if self._early and fresh >= _WRITEBACK:
            disk_hints.begin_writeback(self._descriptor, self._started, fresh)
            self._started = self._written

    def _with_path(self, error: OSError) -> OSError:
        return OSError(error.errno, error.strerror, self._path)


def _write(file: _DataFile, tensor: Any) -> int:
    """Writes a tensor of a type of fixed size; returns the checksum."""
    array = np.asarray(tensor._numpy())  # shares the tensor's buffer
    return file.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8), 0)


def _write_strings(file: _DataFile, tensor: Any) -> int:
    """Writes a tensor of strings; returns the checksum. `tensor_checksum` describes the format."""
    strings = _strings(tensor)
    lengths = b"".join(struct.pack("<I" if n < 1 << 32 else "<Q", n) for n in map(len, strings))
    crc = crc32c.extend(0, lengths)
    file.append(b"".join(map(_varint, map(len, strings))), 0)
    crc = file.append(struct.pack("<I", crc32c.mask(crc)), crc)
    for string in strings:
        crc = file.append(string, crc)
    return crc


def _strings(tensor: Any) -> Sequence[bytes]:
    flat: Iterable[bytes] = np.asarray(tensor.numpy(), dtype=object).reshape(-1)
    return list(flat)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
