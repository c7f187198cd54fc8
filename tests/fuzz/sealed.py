"""Bytes with right checksums around wrong ones: no guessing gets past those."""

from __future__ import annotations

import struct

from distckpt.core import crc32c, table


def first_block(index: bytes) -> bytes:
    """Returns the content of the data block of a small index, which has just one."""
    meta, _ = table._read_footer(index)
    return index[: meta.offset - table._TRAILER_SIZE]


def table_of(content: bytes) -> bytes:
    """Returns the table that has `content` as its one data block."""
    out = bytearray(content + b"\0")
    out += struct.pack("<I", crc32c.mask(crc32c.value(bytes(out))))
    meta = table._append_block(out, table._BlockWriter(restart_interval=1))
    index = table._BlockWriter(restart_interval=1)
    index.add(b"\xff", table._encode_handle(table._Handle(0, len(content))))
    return bytes(out + table._footer(meta, table._append_block(out, index)))


def strings(*contents: bytes) -> bytes:
    """Returns the bytes of a tensor of strings in a data file, and their checksum."""
    lengths = b"".join(struct.pack("<I", len(content)) for content in contents)
    head = b"".join(table._encode_varint(len(content)) for content in contents)
    rest = _masked(lengths) + b"".join(contents)
    return head + rest + _masked(lengths + rest)


def variants(*contents: bytes) -> bytes:
    """Returns the bytes of a tensor of variants, as `contents` encode them, and their checksum."""
    covered = out = b""
    for content in contents:
        covered += struct.pack("<Q", len(content)) + content
        checksum = _masked(covered)
        out += table._encode_varint(len(content)) + content + checksum
        covered += checksum
    return out + _masked(covered)


def _masked(data: bytes) -> bytes:
    return struct.pack("<I", crc32c.mask(crc32c.value(data)))
