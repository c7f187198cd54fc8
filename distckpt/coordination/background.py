"""Makes a call that may block forever without blocking its caller."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from distckpt.coordination.crew import Crew
from distckpt.errors import CoordinationError

_Result = TypeVar("_Result")


class Background(Generic[_Result]):
    """Runs `function` on a thread of a crew; a call that never ends keeps the thread.

    Raises:
      CoordinationError: No thread is available.
    """

    def __init__(self, function: Callable[[], _Result], crew: Crew) -> None:
        self._function = function
        self._started = time.monotonic()
        self._done = threading.Event()
        self._value: _Result | None = None
        self._error: Exception | None = None
        if not crew.do(self._run):
            raise CoordinationError(
                "No thread can be started to call the coordination service: this process, or its "
                "container, has reached the limit of its threads. Raise it (ulimit -u, pids.max)."
            )

    def finished(self, timeout: float) -> bool:
        """Returns whether the call has ended, after waiting at most `timeout` seconds."""
        return self._done.wait(timeout)

    def seconds(self) -> float:
        """Returns how long ago the call began."""
        return time.monotonic() - self._started

    def result(self) -> _Result:
        """Returns what the finished call returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return cast(_Result, self._value)

    def _run(self) -> None:
        try:
            self._value = self._function()
        except Exception as error:
            self._error = error
        finally:
            self._done.set()
