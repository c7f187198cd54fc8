"""Keeps Python's garbage collector out of the way while many small objects are made.

A state of 10,000 variables makes some 100,000 objects. Each makes the collector look through the
whole heap of a TensorFlow program again and again: half a second of a save that takes one.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Pauses the collector. For work of a moment only, never while waiting."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
