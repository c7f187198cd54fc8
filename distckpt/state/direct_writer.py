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

import contextlib
import errno
import math
import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distckpt.core import layout
from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.dtypes import BY_NUMBER
from distckpt.core.tensorflow_format.index_writer import StoredTensor, make_index
from distckpt.core.tensorflow_format.leveldb_table import encode_varint
from distckpt.runtime import disk_hints
from distckpt.state.base import BundleWriter
from distckpt.state.tensorflow_ops import OpWriter

# How many bytes are passed to the checksum and then to the file: they stay in the cache meanwhile.
_CHUNK = 1 << 20
# Smaller tensors are gathered, so that one call writes many of them.
_SMALL = 64 * 1024
# A tensor of more strings is left to TensorFlow.
_MOST_STRINGS = 10_000
# After how many bytes the disk is to begin writing them.
_WRITEBACK = 16 << 20


class DirectWriter(BundleWriter):
    """Writes bundles directly, or by TensorFlow's op what only that can write.

    That is: to URLs, on a given device, on big-endian machines, variants, and many strings, which
    take 16 times as long in Python.

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
    return "://" not in path and sys.byteorder == "little" and all(map(_is_easy, tensors))


def _is_easy(tensor: Any) -> bool:
    if tensor.dtype == tf.string:
        return int(math.prod(tensor._shape_tuple())) <= _MOST_STRINGS
    return _size(tensor) is not None


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
    size = sum(map(_stored_size, tensors))
    with _DataFile(layout.data_name(path, 0, 1), size, early=early) as file:
        for number, (key, spec) in enumerate(zip(keys, specs, strict=True)):
            tensor, tensors[number] = tensors[number], None
            offset = file.offset
            write = _write_strings if tensor.dtype == tf.string else _write
            crc = write(file, tensor)
            dtype, shape = tensor.dtype.as_datatype_enum, tensor._shape_tuple()
            size = file.offset - offset
            stored.append(StoredTensor(key, spec, dtype, shape, offset, size, crc32c.mask(crc)))
    content = make_index(stored)
    with open(layout.index_name(path), "xb") as index:
        index.write(content)


def _stored_size(tensor: Any) -> int:
    """Returns how many bytes a tensor takes in the data file."""
    size = _size(tensor)
    if size is not None:
        return size
    lengths = [len(string) for string in _strings(tensor)]
    return sum(lengths) + sum(len(encode_varint(length)) for length in lengths) + 4


def _size(tensor: Any) -> int | None:
    """Returns how many bytes a tensor takes in a file; None if that depends on its content."""
    known = BY_NUMBER.get(tensor.dtype.as_datatype_enum)
    if known is None or known.size is None:
        return None
    return int(known.size * math.prod(tensor._shape_tuple()))


class _DataFile:
    """A data file that is written from its beginning to its end.

    It must not exist: two processes that take the same worker's place must not write to one file.
    """

    def __init__(self, path: str, size: int, *, early: bool) -> None:
        self.offset = 0  # of what was given; `_pending` is not yet in the file
        self._path = path
        self._size = size
        self._early = early
        self._written = 0
        self._started = 0  # up to here, the disk has begun writing
        self._pending = bytearray()

    def __enter__(self) -> _DataFile:
        self._file = open(self._path, "xb", buffering=0)
        try:
            with self._naming_the_file():
                disk_hints.preallocate(self._file.fileno(), self._size)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is not None:
            with contextlib.suppress(OSError):  # the first error says what is wrong
                self._file.close()
            return
        with self._naming_the_file(), self._file:
            self._flush()

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
        with self._naming_the_file():
            while view:
                count = self._file.write(view)
                if not count:
                    raise OSError(errno.EIO, "nothing could be written")
                view = view[count:]
            fresh = self._written - self._started
            if self._early and fresh >= _WRITEBACK:
                disk_hints.begin_writeback(self._file.fileno(), self._started, fresh)
                self._started = self._written

    @contextlib.contextmanager
    def _naming_the_file(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None


def _write(file: _DataFile, tensor: Any) -> int:
    """Writes a tensor of a type of fixed size; returns the checksum."""
    array = np.asarray(tensor._numpy())  # shares the tensor's buffer
    return file.append(np.ascontiguousarray(array).reshape(-1).view(np.uint8), 0)


def _write_strings(file: _DataFile, tensor: Any) -> int:
    """Writes a tensor of strings; returns the checksum. `tensor_checksum` describes the format."""
    strings = _strings(tensor)
    lengths = b"".join(struct.pack("<I" if n < 1 << 32 else "<Q", n) for n in map(len, strings))
    crc = crc32c.extend(0, lengths)
    file.append(b"".join(map(encode_varint, map(len, strings))), 0)
    crc = file.append(struct.pack("<I", crc32c.mask(crc)), crc)
    for string in strings:
        crc = file.append(string, crc)
    return crc


def _strings(tensor: Any) -> Sequence[bytes]:
    flat: Iterable[bytes] = np.asarray(tensor.numpy(), dtype=object).reshape(-1)
    return list(flat)
