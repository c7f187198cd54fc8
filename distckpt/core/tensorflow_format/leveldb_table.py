"""Reads and writes LevelDB tables, the container of a tensor bundle's ``.index`` file.

    data blocks … | meta-index block | index block | footer

    block    entries, the positions of the restarts (uint32 each), their number (uint32);
             then a trailer: a type byte (0: not compressed), the masked CRC32C of block and type
    entry    varint: bytes shared with the key before; varint: further bytes of the key;
             varint: bytes of the value; the further bytes; the value
    index    one entry for each data block: its handle (varint offset, varint size)
    footer   handles of meta-index and index, padded to 40 bytes; the magic number (uint64)

Source: ``table_builder.cc``, ``block_builder.cc`` and ``format.cc`` in ``tensorflow/core/lib/io``.
`write_table` makes the same bytes as TensorFlow's writer. `read_table` accepts only files of that
form, in which every byte is accounted for, so no damage goes unnoticed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from distckpt.core.tensorflow_format import crc32c
from distckpt.errors import CheckpointDamagedError

_MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
_FOOTER_SIZE = 48
_ONE_BYTE = [bytes((number,)) for number in range(0x80)]
_TRAILER_SIZE = 5
_BLOCK_SIZE = 262144
_RESTART_INTERVAL = 16


class _Handle(NamedTuple):
    """The place of a block; `size` excludes the trailer."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        return self.offset + self.size + _TRAILER_SIZE


# --- Reading ------------------------------------------------------------------------------------


def read_table(data: bytes) -> list[tuple[bytes, bytes]]:
    """Returns the (key, value) pairs of a table, in order.

    Args:
      data: The whole file.

    Raises:
      CheckpointDamagedError: `data` is not such a table, or is damaged; the message says what is
        wrong and where.
    """
    meta, index = _read_footer(data)
    handles: list[tuple[bytes, bytes]] = []
    _read_entries(_block(data, index), index.offset, handles)
    pairs: list[tuple[bytes, bytes]] = []
    position = 0
    for _, encoded in handles:
        handle, used = _read_handle(encoded, 0)
        if handle.offset != position or used != len(encoded):
            raise damaged(f"no block begins at byte {handle.offset}")
        _read_entries(_block(data, handle), handle.offset, pairs)
        position = handle.end
    if (position, meta.end, index.end) != (meta.offset, index.offset, len(data) - _FOOTER_SIZE):
        raise damaged("its blocks do not fill it")
    _block(data, meta)
    return pairs


def damaged(what: str) -> CheckpointDamagedError:
    """Returns the error to raise for a damaged index file."""
    return CheckpointDamagedError(f"The index file is damaged: {what}.")


def _read_footer(data: bytes) -> tuple[_Handle, _Handle]:
    if len(data) < _FOOTER_SIZE:
        raise damaged(f"it has {len(data)} bytes, less than the footer of a table")
    footer = data[-_FOOTER_SIZE:]
    if not footer.endswith(_MAGIC):
        raise damaged("it does not end like a table; it is cut off or something else")
    meta, position = _read_handle(footer, 0)
    index, _ = _read_handle(footer, position)
    if _footer(meta, index) != footer:
        raise damaged(f"the footer at byte {len(data) - _FOOTER_SIZE} makes no sense")
    return meta, index


def _read_handle(data: bytes, position: int) -> tuple[_Handle, int]:
    offset, position = _read_varint(data, position)
    size, position = _read_varint(data, position)
    return _Handle(offset, size), position


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Returns the number of at most 64 bits at `position`, and the position behind it."""
    result = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            raise damaged("a number is cut off")
        byte = data[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
    raise damaged("a number is too long")


def _block(data: bytes, handle: _Handle) -> bytes:
    """Returns the content of a block after checking its checksum."""
    if handle.end > len(data) - _FOOTER_SIZE:
        raise damaged(f"the block at byte {handle.offset} would reach beyond the end")
    sealed = data[handle.offset : handle.end - 4]
    (stored,) = struct.unpack_from("<I", data, handle.end - 4)
    actual = crc32c.mask(crc32c.value(sealed))
    if stored != actual:
        raise damaged(
            f"the block at byte {handle.offset} has checksum {actual:#010x}, not {stored:#010x}"
        )
    if sealed[-1] != 0:
        raise damaged(
            f"the block at byte {handle.offset} is compressed (type {sealed[-1]}), which "
            "TensorFlow never does in checkpoints"
        )
    return sealed[:-1]


def _read_entries(block: bytes, offset: int, pairs: list[tuple[bytes, bytes]]) -> None:
    """Appends the entries of `block`, which begins at byte `offset` of the file, to `pairs`."""
    end = _end_of_entries(block, offset)
    # Keys share prefixes, so a small file could expand to a huge list. In TensorFlow's files at
    # least every 16th key shares nothing, which bounds the list.
    budget = _RESTART_INTERVAL * len(block)
    position, key, first = 0, b"", not pairs
    last = pairs[-1][0] if pairs else b""
    append = pairs.append
    while position < end:
        # The array of restarts follows, so three bytes can always be read.
        shared, fresh, length = block[position], block[position + 1], block[position + 2]
        if shared | fresh | length < 0x80:
            middle = position + 3 + fresh
        else:
            shared, middle = _read_varint(block, position)
            fresh, middle = _read_varint(block, middle)
            length, middle = _read_varint(block, middle)
            middle += fresh
        position = middle + length
        if position > end or shared > len(key):
            raise damaged(f"an entry of the block at byte {offset} reaches beyond its bounds")
        key = key[:shared] + block[middle - fresh : middle]
        if key <= last and not first:
            raise damaged(f"the keys of the block at byte {offset} are out of order")
        budget -= len(key)
        if budget < 0:
            raise damaged(f"the keys of the block at byte {offset} are far longer than it")
        append((key, block[middle:position]))
        last, first = key, False


def _end_of_entries(block: bytes, offset: int) -> int:
    """Returns where the array of restarts begins in `block`."""
    if len(block) >= 8:
        (restarts,) = struct.unpack_from("<I", block, len(block) - 4)
        end = len(block) - 4 - 4 * int(restarts)
        if restarts and end >= 0:
            return end
    raise damaged(f"the block at byte {offset} has no valid array of restarts")


# --- Writing ------------------------------------------------------------------------------------


def write_table(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns a table of (key, value) `pairs`, as TensorFlow's writer makes it.

    Args:
      pairs: In strictly increasing order of their keys.
    """
    out = bytearray()
    index = _BlockWriter(restart_interval=1)
    block = _BlockWriter(_RESTART_INTERVAL)
    closed: tuple[bytes, _Handle] | None = None  # a finished block and its last key
    last = b""
    for key, value in pairs:
        if block.entries and len(key) + len(value) >= 2 * _BLOCK_SIZE:
            closed, block = (last, _append_block(out, block)), _BlockWriter(_RESTART_INTERVAL)
        if closed:
            index.add(_separator(closed[0], key), _encode_handle(closed[1]))
            closed = None
        block.add(key, value)
        last = key
        if block.size >= _BLOCK_SIZE:
            closed, block = (last, _append_block(out, block)), _BlockWriter(_RESTART_INTERVAL)
    if block.entries:
        closed = last, _append_block(out, block)
    meta = _append_block(out, _BlockWriter(_RESTART_INTERVAL))
    if closed:
        index.add(_successor(closed[0]), _encode_handle(closed[1]))
    return bytes(out + _footer(meta, _append_block(out, index)))


class _BlockWriter:
    """Collects the entries of one block."""

    def __init__(self, restart_interval: int) -> None:
        self.entries = 0
        self._interval = restart_interval
        self._content = bytearray()
        self._restarts = [0]
        self._last = b""

    @property
    def size(self) -> int:
        """The current size of the block in bytes."""
        return len(self._content) + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: bytes) -> None:
        shared, content = 0, self._content
        if self.entries % self._interval:
            shared = _shared(self._last, key)
        elif self.entries:
            self._restarts.append(len(content))
        numbers = shared, len(key) - shared, len(value)
        content += bytes(numbers) if max(numbers) < 0x80 else b"".join(map(encode_varint, numbers))
        content += key[shared:]
        content += value
        self._last = key
        self.entries += 1

    def finish(self) -> bytes:
        count = len(self._restarts)
        return bytes(self._content) + struct.pack(f"<{count}II", *self._restarts, count)


def _append_block(out: bytearray, block: _BlockWriter) -> _Handle:
    content = block.finish()
    handle = _Handle(len(out), len(content))
    sealed = content + b"\0"
    out += sealed
    out += struct.pack("<I", crc32c.mask(crc32c.value(sealed)))
    return handle


def _shared(one: bytes, other: bytes) -> int:
    """Returns the length of the common prefix of two keys."""
    size = min(len(one), len(other))
    difference = int.from_bytes(one[:size], "big") ^ int.from_bytes(other[:size], "big")
    return size - (difference.bit_length() + 7) // 8


def _separator(last: bytes, following: bytes) -> bytes:
    """Returns a short key from `last` up to, but not including, `following`."""
    shared = _shared(last, following)
    if shared < len(last) and last[shared] + 1 < following[shared]:
        return last[:shared] + bytes([last[shared] + 1])
    return last


def _successor(last: bytes) -> bytes:
    """Returns a short key that is not less than `last`."""
    for position, byte in enumerate(last):
        if byte != 0xFF:
            return last[:position] + bytes([byte + 1])
    return last


def _footer(meta: _Handle, index: _Handle) -> bytes:
    handles = _encode_handle(meta) + _encode_handle(index)
    return handles.ljust(_FOOTER_SIZE - len(_MAGIC), b"\0") + _MAGIC


def _encode_handle(handle: _Handle) -> bytes:
    return encode_varint(handle.offset) + encode_varint(handle.size)


def encode_varint(number: int) -> bytes:
    """Returns a number in the encoding of LevelDB and protocol buffers, 7 bits to a byte."""
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
