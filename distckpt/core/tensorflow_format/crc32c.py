"""CRC32C, and the masked form in which LevelDB and TensorFlow store it.

A checksum of data that itself holds checksums is weak, so the stored ones are rotated and shifted
(``tensorflow/core/lib/hash/crc32c.h``).
"""

from __future__ import annotations

import google_crc32c

_DELTA = 0xA282EAD8


def value(data: bytes) -> int:
    """Returns the CRC32C of `data`."""
    return int(google_crc32c.value(data))


def extend(crc: int, data: bytes) -> int:
    """Returns the CRC32C of bytes followed by `data`, where `crc` is that of those bytes."""
    return int(google_crc32c.extend(crc, data))


def mask(crc: int) -> int:
    """Returns the stored form of `crc`."""
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF
