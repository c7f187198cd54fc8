"""Threads for calls that may block forever, some of them always in reserve.

A thread cannot always be started: a host or container limits their number, and from Python 3.12 on
none can be started after the main thread has ended, while a background save goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from distckpt.runtime import portable

_NAME = "distckpt-call"


class Crew:
    """Runs functions on daemon threads, each on its own thread. Thread-safe.

    There are more threads than `size` only while more calls than that are blocked.

    Args:
      size: How many threads stay, if they can be started.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._begin()
        portable.in_forked_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._waiting = 0  # threads with work that has a limit
        self._work: SimpleQueue[tuple[str, Callable[[], None], bool]] = SimpleQueue()

    def grow(self, size: int) -> None:
        """Keeps at least `size` threads from now on."""
        with self._lock:
            self._size = max(self._size, size)
            self._hire()

    def do(self, work: Callable[[], None], most: int | None = None, name: str = _NAME) -> bool:
        """Runs `work`, which must not raise, on a thread.

        Args:
          work: The function.
          most: Do not run it if so many pieces of work that were given with this argument run.
          name: The thread's name meanwhile.

        Returns:
          Whether it will run; False also if no thread is free and none can be started.
        """
        with self._lock:
            if most is not None and self._waiting >= most:
                return False
            self._hire()
            if not self._idle and not self._start():
                return False
            self._idle -= 1
            self._waiting += most is not None
        self._work.put((name, work, most is not None))
        return True

    def _hire(self) -> None:
        while self._threads < self._size and self._start():
            pass

    def _start(self) -> bool:
        try:
            threading.Thread(target=self._serve, name=_NAME, daemon=True).start()
        except RuntimeError:
            return False
        self._threads += 1
        self._idle += 1
        return True

    def _serve(self) -> None:
        queue, me = self._work, threading.current_thread()
        while True:
            me.name, work, limited = queue.get()
            try:
                work()
            except BaseException:
                with self._lock:
                    self._waiting -= limited
                    self._threads -= 1
                raise
            me.name = _NAME
            del work  # and the objects it references
            with self._lock:
                self._waiting -= limited
                if self._threads > self._size:
                    self._threads -= 1
                    return
                self._idle += 1
