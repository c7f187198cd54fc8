"""Waiting for a condition that another thread or process makes true."""

from __future__ import annotations

import time


def eventually(condition, complaint="it never came true", *, patience=120.0):
    """Waits until ``condition()`` is true; fails after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.01)
