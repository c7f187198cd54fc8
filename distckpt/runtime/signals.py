"""Reacts to a signal at once, even while the main thread is in a call that does not return.

The interpreter runs a signal's handler in the main thread between two instructions, so not while
that thread waits in a collective, possibly forever. But the moment a signal arrives, the
interpreter writes its number to a file descriptor (`signal.set_wakeup_fd`), and a thread can wait
for that. A descriptor that was set before still gets its numbers.

A process has one descriptor for all signals, and its children inherit it. So a forked child leaves
it and handles its signals as if `listen` had not been called: a signal that kills a child must not
look like a signal to its parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from distckpt.runtime import portable

_log = logging.getLogger("distckpt")


def listen(
    number: int,
    handler: Callable[[int, FrameType | None], Any],
    call: Callable[[], None],
    in_children: Any = signal.SIG_DFL,
) -> None:
    """Installs `handler` for a signal, and calls `call` at once when it arrives. Main thread.

    Without POSIX, or if another descriptor has been set since, only `handler` is called.

    Args:
      number: The signal.
      handler: As for `signal.signal`.
      call: Called on a thread, before or after `handler`. Replaces an earlier `call` for that
        signal.
      in_children: The handler of forked children, unless an earlier call has set it.

    Raises:
      ValueError: This is not the main thread.
      RuntimeError: No thread can be started.
    """
    global _wakeup
    if portable.POSIX:
        _wakeup = _wakeup or _Wakeup()
        _wakeup.add(number, handler, call, in_children)
    signal.signal(number, handler)


class _Wakeup:
    """The descriptor of this process, and the thread that waits for it."""

    def __init__(self) -> None:
        self._calls: dict[int, Callable[[], None]] = {}
        self._of_children: dict[int, tuple[Any, Any]] = {}  # by signal: (ours, theirs)
        self._elsewhere: tuple[int, Any] | None = None  # the earlier descriptor
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        try:
            threading.Thread(target=self._run, name="distckpt signals", daemon=True).start()
        except RuntimeError:
            os.close(self._reading)
            os.close(self._writing)
            raise

    def add(self, number: int, handler: Any, call: Callable[[], None], in_children: Any) -> None:
        before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        if before not in (-1, self._writing):
            if self._calls:  # a later descriptor may pass numbers on: avoid a circle
                signal.set_wakeup_fd(before)
            else:
                self._elsewhere = before, _identity(before)
        self._calls[number] = call
        first = self._of_children.get(number)
        self._of_children[number] = (handler, first[1] if first else in_children)

    @property
    def numbers(self) -> frozenset[int]:
        return frozenset(self._of_children)

    def leave_to_parent(self) -> None:
        """In a child: the descriptor is the parent's."""
        before = signal.set_wakeup_fd(-1)
        if before != self._writing:
            signal.set_wakeup_fd(before)
        elif self._elsewhere is not None:
            with contextlib.suppress(ValueError, OSError):  # the descriptor was closed
                signal.set_wakeup_fd(self._elsewhere[0])
        for number, (ours, theirs) in self._of_children.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, theirs)
        os.close(self._reading)
        os.close(self._writing)

    def _run(self) -> None:
        while True:
            numbers = os.read(self._reading, 4096)
            self._pass_on(numbers)
            for number in numbers:
                if number in self._calls:
                    try:
                        self._calls[number]()
                    except Exception:
                        _log.exception("The reaction to signal %d has failed.", number)

    def _pass_on(self, numbers: bytes) -> None:
        """Writes the numbers to the earlier descriptor, if it is still open."""
        if self._elsewhere is None:
            return
        descriptor, identity = self._elsewhere
        if _identity(descriptor) == identity:
            with contextlib.suppress(OSError):  # the pipe is full, so its reader wakes up anyway
                os.write(descriptor, numbers)


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Returns the identity of an open file, as its number may be reused."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# --- Children -----------------------------------------------------------------------------------
#
# Between the fork and `leave_to_parent`, a signal to the child would be written to the parent's
# descriptor; `Process.terminate` right after `Process.start` comes so early. So signals are
# blocked.

_held = threading.local()


def _hold_up() -> None:
    if _wakeup is not None:
        _held.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _wakeup.numbers)


def _let_through() -> None:
    mask = _held.__dict__.pop("mask", None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin_anew() -> None:
    global _wakeup
    if _wakeup is not None:
        _wakeup.leave_to_parent()
    _wakeup = None
    _let_through()


_wakeup: _Wakeup | None = None
if portable.POSIX:
    os.register_at_fork(before=_hold_up, after_in_parent=_let_through, after_in_child=_begin_anew)
