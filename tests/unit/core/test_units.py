"""Numbers as people read them: never four digits, never more than are known."""

from __future__ import annotations

import pytest

from distckpt.core import units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (999.6 * 1024, "0.98 MiB"),
        (3 * 2**29, "1.50 GiB"),
        (5000 * 2**50, "5000 PiB"),
    ],
)
def test_sizes(count, text):
    assert units.size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-1.0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (59.96, "1 min"),
        (5400, "2 h"),
        (129600, "2 d"),
    ],
)
def test_durations(seconds, text):
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "just now"), (59, "59 s ago"), (61, "1 min ago"), (7200, "2 h ago")]
)
def test_ages(seconds, text):
    assert units.age(seconds) == text
