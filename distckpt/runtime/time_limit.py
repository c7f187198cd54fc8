"""Ends this process at its time limit, even if other threads hang.

The thread is started early, because later no thread may be available. It takes no lock and writes
no log before the limit, because the holder of a lock may be the thread that hangs.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from distckpt.runtime import portable

# How long the last message may take, in seconds: the log may go to a full pipe.
_LAST_WORDS = 1.0
# The longest single wait, in seconds.
_LONGEST = 3600.0


class TimeLimit:
    """A time limit for this process, to be set once. Any thread; also in a signal handler.

    Raises:
      RuntimeError: No thread can be started.
    """

    def __init__(self) -> None:
        self.lifted = False
        _keeper.start()

    def set(self, seconds: float, say: Callable[[], None], code: int) -> None:
        """Ends the process after `seconds`, unless the limit is lifted before or after this call.

        Args:
          seconds: From now on.
          say: Called at the limit; it has one second.
          code: The exit code.
        """
        at = time.monotonic() + seconds
        _keeper.orders.put((self, (at, lambda: _end(say, code))))

    def lift(self) -> None:
        """Lifts the limit."""
        _keeper.orders.put((self, None))


_Limit = tuple[float, Callable[[], None]]  # the time, and the action


class _Keeper:
    """The thread that ends this process."""

    def __init__(self) -> None:
        # A queue with a reentrant `put`: a signal handler sets limits.
        self.orders: SimpleQueue[tuple[TimeLimit, _Limit | None]] = SimpleQueue()
        self.limits: dict[TimeLimit, _Limit] = {}
        self._started = False

    def start(self) -> None:
        """Starts the thread, if it is not running."""
        if not self._started:
            threading.Thread(target=self._run, name="distckpt grace", daemon=True).start()
            self._started = True

    def _run(self) -> None:
        while True:
            left = _LONGEST
            for at, end in self.limits.values():
                left = min(left, at - time.monotonic())
                if left <= 0:
                    end()
            with contextlib.suppress(Empty):
                self._take(*self.orders.get(timeout=left))

    def _take(self, who: TimeLimit, limit: _Limit | None) -> None:
        who.lifted = who.lifted or limit is None
        if limit is not None and not who.lifted:
            self.limits[who] = limit
        else:
            self.limits.pop(who, None)


def _end(say: Callable[[], None], code: int) -> None:
    try:
        thread = threading.Thread(target=say, name="distckpt last words", daemon=True)
        thread.start()
        thread.join(_LAST_WORDS)
    except RuntimeError:  # no thread can be started, so there is no message
        pass
    finally:
        os._exit(code)


def _begin_anew() -> None:
    """A forked child has neither the thread nor its parent's limits."""
    global _keeper
    _keeper = _Keeper()


_keeper = _Keeper()
portable.in_forked_child(_begin_anew)
