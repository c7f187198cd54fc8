from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from distckpt.core.tensorflow_format import crc32c


def test_values_are_those_of_the_standard():
    assert crc32c.value(b"123456789") == 0xE3069283  # RFC 3720, and every CRC catalogue
    assert crc32c.value(bytes(32)) == 0x8A9136AA  # RFC 3720, appendix B.4


@given(st.binary(), st.binary())
def test_checksums_can_be_extended(first, second):
    assert crc32c.extend(crc32c.value(first), second) == crc32c.value(first + second)


@given(st.integers(0, 2**32 - 1))
def test_masking_can_be_undone(crc):
    masked = crc32c.mask(crc)
    assert 0 <= masked < 2**32
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == crc


def test_masking_changes_a_checksum_each_time():
    crc = crc32c.value(b"foo")
    assert len({crc, crc32c.mask(crc), crc32c.mask(crc32c.mask(crc))}) == 3
