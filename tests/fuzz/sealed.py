"""Bytes with right checksums around wrong ones: no guessing gets past those."""

from __future__ import annotations

import struct

from distckpt.core import manifest_checksum
from distckpt.core.tensorflow_format import crc32c, leveldb_table

_LAST = f',\n "{manifest_checksum.FIELD}": '.encode()


def fields(manifest: bytes) -> bytes:
    """Returns the content of a manifest without its checksum."""
    return manifest[: manifest.rindex(_LAST)] + b"\n}\n"


def manifest(content: bytes) -> bytes:
    """Returns the manifest that says `content`."""
    return manifest_checksum.add(content)


def first_block(index: bytes) -> bytes:
    """Returns the content of the data block of a small index, which has just one."""
    meta, _ = leveldb_table._read_footer(index)
    return index[: meta.offset - leveldb_table._TRAILER_SIZE]


def table_of(content: bytes) -> bytes:
    """Returns the table that has `content` as its one data block."""
    out = bytearray(content + b"\0")
    out += struct.pack("<I", crc32c.mask(crc32c.value(bytes(out))))
    meta = leveldb_table._append_block(out, leveldb_table._BlockWriter(restart_interval=1))
    index = leveldb_table._BlockWriter(restart_interval=1)
    index.add(b"\xff", leveldb_table._encode_handle(leveldb_table._Handle(0, len(content))))
    return bytes(out + leveldb_table._footer(meta, leveldb_table._append_block(out, index)))


def strings(*contents: bytes) -> bytes:
    """Returns the bytes of a tensor of strings in a data file, and their checksum."""
    lengths = b"".join(struct.pack("<I", len(content)) for content in contents)
    head = b"".join(leveldb_table.encode_varint(len(content)) for content in contents)
    rest = _masked(lengths) + b"".join(contents)
    return head + rest + _masked(lengths + rest)


def variants(*contents: bytes) -> bytes:
    """Returns the bytes of a tensor of variants, as `contents` encode them, and their checksum."""
    covered = out = b""
    for content in contents:
        covered += struct.pack("<Q", len(content)) + content
        checksum = _masked(covered)
        out += leveldb_table.encode_varint(len(content)) + content + checksum
        covered += checksum
    return out + _masked(covered)


def _masked(data: bytes) -> bytes:
    return struct.pack("<I", crc32c.mask(crc32c.value(data)))
