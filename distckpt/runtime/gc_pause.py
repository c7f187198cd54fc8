"""Pauses Python's garbage collector while many small objects are made.

A state of 10,000 variables makes some 100,000 objects. They make the collector scan the whole heap
of a TensorFlow program again and again: half a second of a save that takes one second, and a
quarter of the time of a restore.

All threads of a process share the collector, the training thread included. So it is paused only
during computation, and while TensorFlow restores, when nothing is trained; never while waiting for
a file, a lock or another worker.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator

from distckpt.runtime import portable


class _Pause:
    """How many threads pause the collector, and whether it was on before the first did."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._was_enabled = False

    def begin(self) -> None:
        with self._lock:
            if self._threads == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._threads += 1

    def end(self) -> None:
        with self._lock:
            self._threads -= 1
            if self._threads == 0 and self._was_enabled:
                gc.enable()

    def end_all(self) -> None:
        if self._threads and self._was_enabled:
            gc.enable()


def _begin_anew() -> None:
    """A forked child has only the forking thread, so no other thread would end the pause."""
    global _pause
    _pause.end_all()
    _pause = _Pause()


_pause = _Pause()
portable.in_forked_child(_begin_anew)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Pauses the collector. Only for short work, never while waiting. In any thread."""
    pause = _pause
    pause.begin()
    try:
        yield
    finally:
        pause.end()
