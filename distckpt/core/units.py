"""Formats sizes and times for people, and numbers for JSON. Pure."""

from __future__ import annotations

import math


def size(count: int | float | None) -> str:
    """Returns a number of bytes for people: "1.50 GiB"."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{count:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        count /= 1024
        if count < 999.5 or unit == "PiB":
            break
    return f"{count:.{2 if count < 9.995 else 1 if count < 99.95 else 0}f} {unit}"


def duration(seconds: float | None) -> str:
    """Returns a number of seconds for people: "12 ms", "3.2 s", "5 min", "3 h", "2 d"."""
    if seconds is None:
        return "-"
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for limit, unit, length in ((5400, "min", 60), (129600, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def age(seconds: float) -> str:
    """Returns an age for people; a time in the future, by another clock, is "just now"."""
    if seconds < 1:
        return "just now"
    return f"{seconds:.0f} s ago" if seconds < 59.5 else f"{duration(seconds)} ago"


def json_number(value: float) -> float | str:
    """Returns a number for JSON, which has neither NaN nor infinity: these become strings."""
    return value if math.isfinite(value) else str(value)
