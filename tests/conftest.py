"""Leaves out what is about POSIX where this is none, or makes believe: see `distckpt.portable`."""

from __future__ import annotations

import pytest

from distckpt import portable


def pytest_collection_modifyitems(items):
    for item in items:
        if not portable.POSIX and item.get_closest_marker("posix"):
            item.add_marker(pytest.mark.skip(reason="there is no such thing on this system"))
