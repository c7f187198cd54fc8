"""Lets the threads of a program use one manager in turn, in the order of their calls."""

from __future__ import annotations

import dataclasses
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType

from distckpt.errors import ConfigurationError
from distckpt.runtime import portable

# Seconds between two checks whether the call that has its turn was interrupted as it ended.
_GLANCE = 1.0


@dataclasses.dataclass(eq=False)
class _Turn:
    """One call's place in the queue; `frame` is the function that holds the turn."""

    thread: int
    frame: FrameType
    came: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def is_over(self) -> bool:
        """Whether the function has ended, so that nobody will give the turn back."""
        try:
            self.frame.clear()
        except RuntimeError:  # it is still executing
            return False
        return True


class ThreadTurns:
    """A fair lock that raises an error if a thread would wait for itself.

    Every call of a manager has deadlines, so a thread does not wait for its turn forever.

    A signal handler that raises may interrupt the very statement that gives the turn back. So a
    turn counts only as long as the function that has taken it is executing.

    Args:
      check: Called before each turn; raises if this thread must not wait for one.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        self._check = check
        self._lock = threading.RLock()  # a signal handler may use it at any point
        self._queue: tuple[_Turn, ...] = ()
        _all.add(self)

    def __enter__(self) -> None:
        """Waits for this thread's turn, which lasts at most as long as the calling function.

        Raises:
          ConfigurationError: It is this thread's turn already: a save policy, a write callback or a
            signal handler called the manager within another call.
        """
        self._check()
        turn = _Turn(threading.get_ident(), sys._getframe(1))
        with self._lock:
            self._advance()
            if any(other.thread == turn.thread for other in self._queue):
                raise ConfigurationError(
                    "A method of the checkpoint manager was called from within another one: by a "
                    "save policy, a write callback or a signal handler. Call it after the other "
                    "method has returned."
                )
        try:
            with self._lock:
                self._queue = (*self._queue, turn)
                self._advance()
            while not turn.came.wait(_GLANCE):
                with self._lock:
                    self._advance()
        except BaseException:  # interrupted
            self._remove(turn.frame)
            raise

    def __exit__(self, *unused: object) -> None:
        """Gives the turn to the next thread."""
        self._remove(sys._getframe(1))

    def _remove(self, frame: FrameType) -> None:
        with self._lock:
            self._queue = tuple(turn for turn in self._queue if turn.frame is not frame)
            self._advance()

    def _begin_anew(self) -> None:
        """A forked child has only the thread that forked it; other threads' turns are over."""
        self._lock = threading.RLock()
        me = threading.get_ident()
        self._queue = tuple(turn for turn in self._queue if turn.thread == me)

    def _advance(self) -> None:
        """Drops the turns that are over, and tells the next one that it has come."""
        self._queue = tuple(turn for turn in self._queue if not turn.is_over)
        if self._queue:
            self._queue[0].came.set()


_all: weakref.WeakSet[ThreadTurns] = weakref.WeakSet()


def _begin_anew() -> None:
    for turns in tuple(_all):
        turns._begin_anew()


portable.in_forked_child(_begin_anew)
