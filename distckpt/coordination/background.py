"""A call that may block for ever, made so that its caller does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar, cast

_Result = TypeVar("_Result")


class Background(Generic[_Result]):
    """Runs `function` on a daemon thread of its own; a call that never ends keeps the thread."""

    def __init__(self, function: Callable[[], _Result]) -> None:
        self._function = function
        self._started = time.monotonic()
        self._done = threading.Event()
        self._value: _Result | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._run, name="distckpt-call", daemon=True).start()

    def finished(self, timeout: float) -> bool:
        """Returns whether the call has ended, after waiting `timeout` seconds at the most."""
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
