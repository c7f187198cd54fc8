"""Parsers that are wrong, for the tests of `guided`."""

from __future__ import annotations

import time

from distckpt.errors import CheckpointDamagedError

from .targets import Target


def targets() -> dict[str, Target]:
    found = (
        Target("raises", _raises, (b"size: 1",)),
        Target("takes too much", _takes_too_much, (b"size: 1",)),
        Target("hangs", _hangs, (b"size: 1",)),
    )
    return {target.name: target for target in found}


def _raises(data: bytes) -> object:
    """Raises for one of some billions of inputs, to which only the branches show the way."""
    for position, byte in enumerate(b"disc"):
        if len(data) <= position or data[position] != byte:
            raise CheckpointDamagedError("not what was saved")
    raise KeyError("found")


def _takes_too_much(data: bytes) -> object:
    return bytearray(8 << 20) if data else None


def _hangs(data: bytes) -> object:
    if len(data) > 3 and data[0] > 0x80:
        time.sleep(1000)
    return None
