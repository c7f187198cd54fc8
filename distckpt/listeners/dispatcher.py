"""Passes events to listeners, so that no listener can harm a save.

One thread of the process calls all listeners, in order, one event after the other. Emitting an
event only puts it into a queue. If listeners are slow, the queue fills up, and further events are
dropped; if a listener raises, the error is logged, and the listener is called again for the next
event. When the program ends, listeners have a moment to empty the queue. Without listeners nothing
happens at all: no thread, no clock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any

from distckpt.events import Event, Listener
from distckpt.runtime import host, portable

_log = logging.getLogger("distckpt")
# How many events may wait in the queue: those of about a hundred saves.
MOST_WAITING = 1000
# How long the end of the program waits for listeners, in seconds.
LAST_WORDS = 2.0


class Dispatcher:
    """Emits the events of one manager on one worker. From any thread, also in a signal handler.

    Args:
      listeners: The listeners.
      directory: The checkpoint directory.
      worker: This worker's index.
      workers: The number of workers.
    """

    def __init__(
        self,
        listeners: Sequence[Listener] = (),
        directory: str = "",
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        self._listeners = tuple(_Listening(listener) for listener in listeners)
        self._worker = worker
        self._workers = workers
        self.directory = directory

    def __call__(self, kind: type[Event], **fields: Any) -> None:
        """Emits an event of the class `kind`; the fields of `Event` are added."""
        if not self._listeners:
            return
        event = kind(
            time=host.now(),
            worker=self._worker,
            workers=self._workers,
            directory=self.directory,
            **fields,
        )
        _post.put(event, self._listeners)

    def flush(self, seconds: float = LAST_WORDS) -> None:
        """Waits until listeners have handled all events so far, for at most `seconds`."""
        if self._listeners:
            _post.flush(seconds)


class _Listening:
    """A listener; only its first error is logged."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._has_failed = False

    def hear(self, event: Event) -> None:
        """Calls the listener. Never raises."""
        try:
            self._listener(event)
        except BaseException:
            if not self._has_failed:
                self._has_failed = True
                _log.exception(
                    "The listener %r failed at %s. It is called for further events; further "
                    "failures are not logged.",
                    self._listener,
                    type(event).__name__,
                )


class _Post:
    """The queue of a process and the thread that empties it.

    The queue's `put` is reentrant, because signal handlers emit events, too.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Event, tuple[_Listening, ...]] | threading.Event]
        self._queue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.dropped = 0

    def put(self, event: Event, listeners: tuple[_Listening, ...]) -> None:
        """Puts an event into the queue, or drops it. Never waits, never raises."""
        waiting = self._queue.qsize()
        if waiting >= MOST_WAITING:
            self._drop(f"Listeners are too slow: {waiting} events are waiting.")
        elif not self._is_running():
            self._drop("No thread can be started for the listeners.")
        else:
            self._queue.put((event, listeners))

    def flush(self, seconds: float) -> None:
        """Waits until the events now in the queue are handled, for at most `seconds`."""
        if self._thread is None or threading.current_thread() is self._thread:
            return
        heard = threading.Event()
        self._queue.put(heard)
        heard.wait(seconds)

    def end(self) -> None:
        """Ends the queue when the program ends."""
        self.flush(LAST_WORDS)
        lost = self._queue.qsize() + self.dropped
        if lost:
            _log.warning("The program ends, and %d events have not reached the listeners.", lost)

    def _is_running(self) -> bool:
        """Returns whether a thread will empty the queue; starts it if necessary."""
        if self._thread is None and self._starting.acquire(blocking=False):
            thread = threading.Thread(target=self._run, name="distckpt events", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # a limit is reached, or the interpreter is about to end
                self._starting.release()
                return False
            self._thread = thread
            # Children of multiprocessing run this, too. It follows the finalizer of
            # `background_save`, which waits for the saves in flight.
            Finalize(None, self.end, exitpriority=-200)
        return True

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, threading.Event):
                item.set()
                continue
            event, listeners = item
            for listener in listeners:
                listener.hear(event)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning("%s Further events are dropped. Saving is not affected.", why)


def flush_all() -> None:
    """Waits a moment until all events are handled; for code that ends the process itself."""
    _post.flush(LAST_WORDS)


def _begin_anew() -> None:
    """Gives a forked child a new queue: it has no thread, and must not emit its parent's events."""
    global _post
    _post = _Post()


_post = _Post()
portable.in_forked_child(_begin_anew)
