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

    Args:
      spare: How many threads are kept waiting for work, if they can be started.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._begin()
        portable.in_forked_child(self._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._idle = 0
        self._work: SimpleQueue[tuple[str, Callable[[], None]]] = SimpleQueue()

    def grow(self, spare: int) -> None:
        """Keeps at least `spare` threads in reserve from now on."""
        with self._lock:
            self._spare = max(self._spare, spare)
            self._hire()

    def do(self, work: Callable[[], None], leave: int = 0, name: str = _NAME) -> bool:
        """Runs `work`, which must not raise, on a thread.

        Args:
          work: The function.
          leave: How many threads to leave for other work.
          name: The thread's name meanwhile.

        Returns:
          Whether it will run; False if no thread is free and none can be started.
        """
        with self._lock:
            self._hire()
            if self._idle <= leave:
                return False
            self._idle -= 1
        self._work.put((name, work))
        return True

    def _hire(self) -> None:
        while self._idle <= self._spare:
            try:
                threading.Thread(target=self._serve, name=_NAME, daemon=True).start()
            except RuntimeError:
                return
            self._idle += 1

    def _serve(self) -> None:
        queue, me = self._work, threading.current_thread()
        while True:
            me.name, work = queue.get()
            work()
            me.name = _NAME
            del work  # and the objects it references
            with self._lock:
                if self._idle > self._spare:
                    return
                self._idle += 1
