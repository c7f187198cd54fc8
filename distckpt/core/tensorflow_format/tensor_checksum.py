"""Checks the bytes of a tensor against the checksum in the index of its bundle.

The layout of the bytes and the coverage of the checksum depend on the type:

    fixed size  the elements; the checksum covers all bytes
    string      a varint length for each element; the masked checksum of the lengths, each as uint32
                (uint64 if it needs more); all contents. The checksum covers the lengths as
                            uint32 or uint64, the stored checksum of the lengths, and the contents
    variant     for each element a varint length, the encoded element, and the masked checksum so
                far. The checksum covers the lengths as uint64, and everything else as stored

Source: ``ReadStringTensor``, ``ReadVariantTensor``, ``BundleReader::GetValue`` in
``tensorflow/core/util/tensor_bundle/tensor_bundle.cc``.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator

from distckpt.core.tensorflow_format import crc32c
from distckpt.core.tensorflow_format.index_reader import BundleEntry
from distckpt.errors import CheckpointDamagedError

CHUNK_SIZE = 8 << 20

Read = Callable[[int, int], bytes]


def verify_entry(entry: BundleEntry, read: Read, *, chunk_size: int = CHUNK_SIZE) -> None:
    """Checks that the data file has the bytes written for `entry`. Any process.

    Args:
      entry: An entry with bytes (one of `Index.stored`).
      read: ``read(offset, size)`` returns bytes of the entry's data file, fewer only at its end.
      chunk_size: How many bytes to read at once; at most about twice as many are held in memory.

    Raises:
      CheckpointDamagedError: Bytes differ or are missing; the message names the tensor, its place
        and the difference.
      OSError: `read` raised it.
    """
    stream = _Stream(entry, read, max(chunk_size, 16))
    if entry.dtype == "string":
        crc = _string_crc(entry, stream)
    elif entry.dtype == "variant":
        crc = _variant_crc(entry, stream)
    else:
        crc = stream.skip(entry.size, 0)
    if stream.left:
        raise stream.damaged(f"{stream.left} bytes more than its elements take")
    stream.expect(crc, entry.crc32c, "its checksum")


class _Stream:
    """The bytes of an entry, from first to last, read in chunks."""

    def __init__(self, entry: BundleEntry, read: Read, chunk_size: int) -> None:
        self.left = entry.size  # bytes of the entry not yet consumed
        self._entry = entry
        self._read = read
        self._chunk_size = chunk_size
        self._buffer = b""
        self._position = 0

    def damaged(self, what: str) -> CheckpointDamagedError:
        entry = self._entry
        name = f"{entry.key!r} (slice {entry.spec!r})" if entry.spec else repr(entry.key)
        return CheckpointDamagedError(
            f"Tensor {name} is damaged in data file {entry.shard}, bytes {entry.offset} to "
            f"{entry.offset + entry.size}: {what}."
        )

    def expect(self, crc: int, masked: int, what: str) -> None:
        """Compares a checksum with its stored form."""
        if crc32c.mask(crc) != masked:
            raise self.damaged(f"{what} is {crc32c.mask(crc):#010x}, not {masked:#010x} as saved")

    def take(self, size: int) -> bytes:
        """Returns the next `size` (few) bytes."""
        if size > self.left:
            raise self.damaged("its elements take more bytes than it has")
        if len(self._buffer) - self._position < size:
            self._fill()
        taken = self._buffer[self._position : self._position + size]
        self._position += size
        self.left -= size
        return taken

    def varint(self) -> int:
        """Returns the next number, of at most 64 bits."""
        result = 0
        for shift in range(0, 64, 7):
            byte = self.take(1)[0]
            result |= (byte & 0x7F) << shift
            if byte < 0x80 and result < 1 << 64:
                return result
        raise self.damaged("the length of an element is too long a number")

    def skip(self, size: int, crc: int) -> int:
        """Consumes `size` bytes; returns the checksum `crc` extended by them."""
        if size > self.left:
            raise self.damaged("its elements take more bytes than it has")
        for piece in self._pieces(size):
            crc = crc32c.extend(crc, piece)
        return crc

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            if self._position == len(self._buffer):
                self._fill()
            piece = self._buffer[self._position : self._position + size]
            self._position += len(piece)
            self.left -= len(piece)
            size -= len(piece)
            yield piece

    def _fill(self) -> None:
        """Reads the bytes that follow those in the buffer."""
        kept = self._buffer[self._position :]
        offset = self._entry.offset + self._entry.size - self.left + len(kept)
        wanted = min(self.left - len(kept), self._chunk_size)
        read = self._read(offset, wanted)
        if len(read) != wanted:
            raise self.damaged(f"the file ends at byte {offset + len(read)}")
        self._buffer, self._position = kept + read if kept else read, 0


def _string_crc(entry: BundleEntry, stream: _Stream) -> int:
    if entry.size == 0:
        return 0
    count = _elements(entry, stream, least=1)
    total = crc = 0
    for _ in range(count):
        length = stream.varint()
        total += length
        crc = crc32c.extend(crc, struct.pack("<I" if length < 1 << 32 else "<Q", length))
    stored = stream.take(4)
    stream.expect(crc, int.from_bytes(stored, "little"), "the checksum of its lengths")
    return stream.skip(total, crc32c.extend(crc, stored))


def _variant_crc(entry: BundleEntry, stream: _Stream) -> int:
    crc = 0
    for number in range(_elements(entry, stream, least=5) if entry.size else 0):
        length = stream.varint()
        crc = stream.skip(length, crc32c.extend(crc, struct.pack("<Q", length)))
        stored = stream.take(4)
        stream.expect(crc, int.from_bytes(stored, "little"), f"the checksum of element {number}")
        crc = crc32c.extend(crc, stored)
    return crc


def _elements(entry: BundleEntry, stream: _Stream, least: int) -> int:
    """Returns the number of elements, each of at least `least` bytes."""
    count = math.prod(entry.shape)
    if count * least > entry.size:
        raise stream.damaged(f"{count} elements cannot be in {entry.size} bytes")
    return count
