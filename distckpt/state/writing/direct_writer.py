"""Writes a tensor bundle without TensorFlow's op: faster, and with less memory.

``SaveV2`` copies everything through buffers of its own, and keeps all tensors of an op until its
end. Here each chunk of a tensor's own buffer is passed first to the checksum and then to the file,
while it is in the processor's cache, and each tensor is released as soon as it is written. The
files have the same bytes as those of ``SaveV2``, see ``BundleWriter`` in
``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.

Private TensorFlow API used here: ``EagerTensor._numpy``, ``_shape_tuple`` and ``_datatype_enum``,
which takes a fifth of the time of ``dtype``; tests/unit/state/test_direct_writer.py would notice a
change.
"""

from __future__ import annotations

import contextlib
import errno
import functools
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
from distckpt.core.tensorflow_format.index_writer import StoredTensor, WrittenIndex, make_index
from distckpt.core.tensorflow_format.leveldb_table import encode_varint
from distckpt.runtime import disk_hints
from distckpt.runtime.gc_pause import paused
from distckpt.state.base import BundleWriter
from distckpt.state.writing.tensorflow_ops import OpWriter

# How many bytes are passed to the checksum and then to the file: they stay in the cache meanwhile.
_CHUNK = 1 << 20
# Smaller tensors are gathered, so that one call writes many of them.
_SMALL = 64 * 1024
_STRING = tf.string.as_datatype_enum
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
    ) -> WrittenIndex | None:
        """See the base class."""
        direct = device is None and "://" not in path and sys.byteorder == "little"
        sizes = _sizes(tensors) if direct else None
        if sizes is None:
            return self._other.write(path, keys, specs, tensors, device)
        return write_bundle(path, keys, specs, tensors, sum(sizes), early=self._durable)


def write_bundle(
    path: str,
    keys: Sequence[str],
    specs: Sequence[str],
    tensors: list[Any],
    size: int,
    *,
    early: bool,
) -> WrittenIndex:
    """Writes tensors as the bundle ``path.index``, ``path.data-00000-of-00001``.

    Args:
      path: Prefix of the files, which do not exist.
      keys: The checkpoint key of each tensor; a key may occur more than once, with different
        slices.
      specs: The slice spec of each tensor, "" for a whole tensor.
      tensors: Eager tensors in host memory; each is taken out of the list once it is written.
      size: How many bytes they take in the data file.
      early: Whether the disk should begin at once, since the caller will flush the files.

    Returns:
      The index.

    Raises:
      OSError: The storage failed.
    """
    stored: list[StoredTensor] = []
    with _DataFile(layout.data_name(path, 0, 1), size, early=early) as file:
        for number, (key, spec) in enumerate(zip(keys, specs, strict=True)):
            tensor, tensors[number] = tensors[number], None
            dtype, shape, offset = tensor._datatype_enum(), tensor._shape_tuple(), file.offset
            crc = _write_strings(file, tensor) if dtype == _STRING else _write(file, tensor)
            nbytes = file.offset - offset
            stored.append(StoredTensor(key, spec, dtype, shape, offset, nbytes, crc32c.mask(crc)))
    with paused():
        written = make_index(stored)
    with open(layout.index_name(path), "xb") as index:
        index.write(written.content)
    return written


def _sizes(tensors: Sequence[Any]) -> list[int] | None:
    """Returns how many bytes each tensor takes in the data file.

    Returns None if TensorFlow must write one of them, or writes it faster.
    """
    sizes = []
    for tensor in tensors:
        dtype, shape = tensor._datatype_enum(), tensor._shape_tuple()
        size = _size(dtype, shape)
        if size is None:
            if dtype != _STRING or math.prod(shape) > _MOST_STRINGS:
                return None
            size = _size_of_strings(tensor)
        sizes.append(size)
    return sizes


@functools.lru_cache(maxsize=4096)
def _size(dtype: int, shape: tuple[int, ...]) -> int | None:
    """Returns how many bytes a tensor takes in a file; None if that depends on its content."""
    known = BY_NUMBER.get(dtype)
    return None if known is None or known.size is None else known.size * math.prod(shape)


def _size_of_strings(tensor: Any) -> int:
    lengths = [len(string) for string in _strings(tensor)]
    return sum(lengths) + sum(len(encode_varint(length)) for length in lengths) + 4


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
            self._pending += data
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
    array = tensor._numpy()  # shares the tensor's buffer
    if array.nbytes < _SMALL:
        return file.append(array.tobytes(), 0)
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
