"""Makes wrong bytes of right ones: by bits, by pieces, by numbers and lengths, by JSON."""

from __future__ import annotations

import json
import random
import re

HUGE = (2**31 - 1, 2**32, 2**63 - 1, 2**63, 10**30, -1, -(2**63), 0)
ODD = ("../../outside", "/etc/passwd", "a\x00b", "\ud800", "ckpt-1" * 200, "", "..", "con", "a\nb")


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Returns a mutation of `data`, of one to four steps."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        data = chance.choice(_STEPS)(data, chance)
    return data[: 1 << 16]


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data or b"\0")
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return chance.choice((data[:begin], data[:begin] + data[end:], data[begin:end]))


def _repeat(data: bytes, chance: random.Random) -> bytes:
    begin, end = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[begin:end] * chance.choice((1, 2, 50)) + data[end:]


def _length(data: bytes, chance: random.Random) -> bytes:
    """Puts a large varint, or a fixed one, where some byte was."""
    place = chance.randrange(len(data) + 1)
    value = chance.choice(
        (b"\xff\xff\xff\xff\x0f", b"\xff" * 9 + b"\x01", b"\xff" * 8, b"\x80" * 11)
    )
    return data[:place] + value + data[place + chance.randrange(9) :]


def _number(data: bytes, chance: random.Random) -> bytes:
    """Replaces a number in a text."""
    found = list(re.finditer(rb"-?\d+", data))
    if not found:
        return _length(data, chance)
    match = chance.choice(found)
    new = chance.choice([str(value).encode() for value in HUGE] + [b"NaN", b"1e999", b"9" * 5000])
    return data[: match.start()] + new + data[match.end() :]


def _json(data: bytes, chance: random.Random) -> bytes:
    """Replaces a value somewhere in a JSON object by another one."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return _flip(data, chance)
    places = list(_places(body))
    if not places:
        return _number(data, chance)
    holder, key = chance.choice(places)
    holder[key] = chance.choice(
        (
            None,
            [],
            {},
            True,
            [[]] * 9,
            *HUGE,
            *ODD,
            [body["name"]] * 3 if isinstance(body, dict) and "name" in body else 1.5,
        )
    )
    return json.dumps(body).encode(errors="replace")


def _deep(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) + 1)
    return data[:place] + chance.choice((b"[", b'{"a":')) * 30_000 + data[place:]


def _places(value):
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, inner in items:
        yield value, key
        yield from _places(inner)


_STEPS = (_flip, _flip, _flip, _cut, _repeat, _length, _number, _json, _json, _deep)
