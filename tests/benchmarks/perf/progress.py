"""Tells on standard error how far the benchmark is, and knows when its time is up."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO

_WIDTH = 20


class TimeIsUpError(Exception):
    """The benchmark may not take longer."""


class Progress:
    """The progress of some parts, one after the other.

    On a terminal the last line is a bar; elsewhere each message is a line of its own.

    Args:
      parts: How many there are.
      seconds: How long they may take in all.
      stream: Where to write.
      clock: Returns the seconds of a monotonic clock.
    """

    def __init__(
        self,
        parts: int,
        seconds: float = math.inf,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._parts = parts
        self._seconds = seconds
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._began = clock()
        self._done = 0
        self._part = ""

    def begin(self) -> None:
        """Starts the clock; from the end of the time on, `TimeIsUpError` may be raised."""
        self._began = self._clock()
        if self._seconds < math.inf:
            signal.signal(signal.SIGALRM, _time_is_up)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)

    def end(self) -> None:
        """Stops the clock, and removes the bar."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def left(self) -> float:
        """Returns how many seconds are left."""
        return self._seconds - (self._clock() - self._began)

    def spare(self) -> float:
        """Returns how many seconds this part may still take, so that each has an equal share."""
        if self._seconds == math.inf:
            return math.inf
        share = self._seconds * (self._done + 1) / self._parts
        return share - (self._clock() - self._began)

    def part(self, name: str) -> None:
        """Tells that a part begins."""
        self._part = name
        self.say(f"{name} …")

    def finished(self) -> None:
        """Counts a part as done."""
        self._done += 1

    def say(self, text: str) -> None:
        """Writes a message, and below it the bar."""
        if not self._stream.isatty():
            self._stream.write(f"[{self._done}/{self._parts}] {text}\n")
        else:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r\x1b[K{text}\n{self.bar()[: width - 1]}")
        self._stream.flush()

    def bar(self) -> str:
        """Returns the bar."""
        full = _WIDTH * self._done // self._parts
        minutes, seconds = divmod(int(self._clock() - self._began), 60)
        bar = "#" * full + "-" * (_WIDTH - full)
        return f"[{bar}] {self._done}/{self._parts} {minutes}:{seconds:02} {self._part}"


def _time_is_up(*_: object) -> NoReturn:
    raise TimeIsUpError
