"""The save in flight of one manager: on a thread of its own, never two, never forgotten.

A program does not end before its saves in flight have: the thread is no daemon, so the interpreter
waits for it, whether the program returns, raises or calls ``sys.exit``. And if a save has failed
and nobody was told, the program ends with exit code 1 and says why.
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

from distckpt import portable
from distckpt.errors import ConfigurationError
from distckpt.roles import emitter

_log = logging.getLogger("distckpt")
# Added to the niceness of the thread, so that training gets the cores first. Measured on 2 cores
# with 256 MiB: the slowest step during a save took 1.9 times the median instead of 2.8; with 19 a
# busy machine let saves take five times as long.
_NICENESS = 10


class Flight:
    """At most one piece of work at a time, in the background. Used by one thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def busy(self) -> bool:
        """Whether the work is not yet done."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[], object], what: str) -> None:
        """Begins `work`; `land` comes first.

        Args:
          work: What to do; it has deadlines of its own.
          what: What to call it in texts: "save() of ckpt-12".

        Raises:
          ConfigurationError: Another thread has begun some since.
        """
        if self._thread is not None:
            raise ConfigurationError(
                f"{what} came while another thread was saving. Call save() from one thread, the "
                "one that trains."
            )
        self._thread = threading.Thread(
            target=self._run, args=(work, what), name=f"distckpt {what}", daemon=False
        )
        _in_the_air.append(self)
        _watch_the_end(os.getpid())
        self._thread.start()

    def wait(self) -> None:
        """Waits until the work is done, however it ended."""
        if self._thread is not None:
            self._thread.join()

    def land(self) -> None:
        """Waits until the work is done; raises its error, once."""
        self.wait()
        if self._thread is not None:
            self._thread = None
            _in_the_air.remove(self)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, work: Callable[[], object], what: str) -> None:
        _yield_to_training()
        try:
            work()
        except BaseException as error:
            _let_go(error)
            self._error = error
            _log.error("%s failed in the background: %s", what, error)


def _yield_to_training() -> None:
    """Lowers the priority of this thread, and of those it will start."""
    portable.lower_priority(_NICENESS)


# Flights that have begun and not landed: nobody has asked yet how they ended.
_in_the_air: list[Flight] = []


def _let_go(error: BaseException | None) -> None:
    """Frees what the frames of an error's traceback hold: the tensors that could not be saved."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@functools.cache
def _watch_the_end(process: int) -> None:
    """Has `_at_exit` called in a child of multiprocessing, too, where atexit is not heeded."""
    Finalize(None, _at_exit, exitpriority=-100)


def _at_exit() -> None:
    """Ends the process with code 1 if a save has failed and nobody was told."""
    for flight in _in_the_air:
        flight.wait()
    failed = [flight for flight in _in_the_air if flight._error is not None]
    _in_the_air.clear()
    if not failed or _ends_by_an_exception():
        return
    for flight in failed:
        _log.critical(
            "The program ends with exit code 1: its last save failed, and neither sync() nor "
            "another save() was called to hear of it. %s",
            flight._error,
        )
    emitter.flush_all()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(1)  # nothing else changes the exit code so late


def _ends_by_an_exception() -> bool:
    """Returns whether the interpreter has shown a traceback; the exit code is not 0 then."""
    return getattr(sys, "last_value", None) is not None and not hasattr(sys, "ps1")


atexit.register(_at_exit)
