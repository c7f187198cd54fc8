"""The background save of one manager: at most one, on a thread of its own.

A program does not end before its background saves: their threads are not daemons, so the
interpreter waits for them, whether the program returns, raises or calls ``sys.exit``. If a save has
failed and the program was not told, the process ends with exit code 1 and logs why.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing.util import Finalize

from distckpt.errors import ConfigurationError
from distckpt.listeners import dispatcher
from distckpt.runtime import portable

_log = logging.getLogger("distckpt")
# Added to the niceness of the thread and of those it starts, so that training gets the cores first.
# Measured on 2 cores with 256 MiB: the slowest step during a save took 1.9 times the median instead
# of 2.8. With 19, saves took five times as long on a busy machine.
_NICENESS = 10


class BackgroundSave:
    """At most one piece of work at a time, in the background. Used by one thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        # Not `Thread.join`: interrupted, it takes a running thread for ended (Python up to 3.12).
        self._done = threading.Event()
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether the work is not yet done."""
        return self._thread is not None and not self._done.is_set()

    @property
    def pending(self) -> bool:
        """Whether there is work that `finish` has not yet waited for."""
        return self._thread is not None or self._error is not None

    @property
    def has_failed(self) -> bool:
        """Whether `finish` will raise."""
        return not self.busy and self._error is not None

    def fail(self, error: BaseException) -> None:
        """Makes `finish` raise `error`, which has prevented the work."""
        self._error = error

    def dismiss(self) -> None:
        """Waits until the work is done, and drops its error."""
        self.wait()
        self._error = None
        self.finish()

    def refuse_own_thread(self) -> None:
        """Raises ConfigurationError on the background thread, which would wait for itself."""
        if threading.current_thread() is self._thread:
            raise ConfigurationError(
                "A method of the checkpoint manager was called from the thread that saves in the "
                "background: by a listener or a write callback. Call it from the program."
            )

    def start(self, work: Callable[[], object], what: str) -> bool:
        """Begins `work`. `finish` must have ended the previous work.

        Args:
          work: The work, which has its own deadlines.
          what: Its name in messages: "save() of ckpt-12".

        Returns:
          Whether the work has begun; if not, no thread can be started, and nothing has changed.

        Raises:
          ConfigurationError: Another thread has begun work meanwhile.
          BaseException: An interrupt. Then the work is either done in the background, or never.
        """
        if self._thread is not None:
            raise ConfigurationError(
                f"{what} was called while another thread was saving. Call save() only from the "
                "thread that trains."
            )
        claim, done = threading.Lock(), threading.Event()
        thread = threading.Thread(
            target=self._run, args=(claim, done, work, what), name=f"distckpt {what}", daemon=False
        )
        try:
            self._thread, self._done = thread, done
            _unfinished.append(self)
            _watch_the_end(os.getpid())
            thread.start()
        except BaseException as error:  # an interrupt, too
            if claim.acquire(blocking=False):  # the thread has not begun the work, and never will
                self._forget()
                if isinstance(error, RuntimeError):
                    _log.warning("%s is not done in the background: %s.", what, error)
                    return False
            raise
        return True

    def wait(self, seconds: float | None = None) -> None:
        """Waits until the work is done or has failed, at most `seconds`."""
        if self._thread is not None:
            self._done.wait(seconds)

    def finish(self) -> None:
        """Waits until the work is done; raises its error, once."""
        self.wait()
        self._forget()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _forget(self) -> None:
        self._thread = None
        if self in _unfinished:
            _unfinished.remove(self)

    def _run(
        self, claim: threading.Lock, done: threading.Event, work: Callable[[], object], what: str
    ) -> None:
        if not claim.acquire(blocking=False):
            return
        try:
            portable.lower_priority(_NICENESS)
            work()
        except BaseException as error:
            _let_go(error)
            self._error = error
            text = str(error).removeprefix(f"{what}: ")
            _log.error("%s failed in the background: %s", what, text)
        finally:
            done.set()


# Background saves that have begun and whose end the program does not know yet.
_unfinished: list[BackgroundSave] = []


def _leave_to_the_parent() -> None:
    """A forked child has no threads, so its parent's saves are not its own to wait for."""
    for background in tuple(_unfinished):
        background._forget()
        background._error = None


portable.in_forked_child(_leave_to_the_parent)


def _let_go(error: BaseException | None) -> None:
    """Frees what an error's traceback holds: the tensors that could not be saved."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@functools.cache
def _watch_the_end(process: int) -> None:
    """Makes a child of multiprocessing call `_at_exit`, too; it ignores atexit."""
    Finalize(None, _at_exit, exitpriority=-100)


def _at_exit() -> None:
    """Ends the process with exit code 1 if a save has failed and the program was not told."""
    for background in _unfinished:
        background.wait()
    failed = [background for background in _unfinished if background._error is not None]
    _unfinished.clear()
    if not failed or _ends_by_an_exception():
        return
    for background in failed:
        _log.critical(
            "The program ends with exit code 1: its last save failed, and the program called "
            "neither sync() nor another save(), which would have raised the error. %s",
            background._error,
        )
    dispatcher.flush_all()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(1)  # nothing else changes the exit code this late


def _ends_by_an_exception() -> bool:
    """Returns whether the interpreter has shown a traceback, so that the exit code is not 0."""
    return getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")


atexit.register(_at_exit)
