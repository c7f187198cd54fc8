"""Hands events to listeners, so that none of them can harm a save.

All listeners of a process are called on one thread, in order, one event after the other. An event
costs whoever emits it a place in a queue. If a listener is slow the queue fills up, and what comes
then is dropped; if it raises, that is logged, and it is called again for the next event. When the
program ends, what is in the queue has a moment left to be heard. Without listeners nothing happens
at all: no thread, no clock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Any

from distckpt import portable
from distckpt.events import Event, Listener
from distckpt.roles import host

_log = logging.getLogger("distckpt")
# How many events may wait to be heard: those of some hundred saves.
MOST_WAITING = 1000
# How long the end of the program waits for them, in seconds.
LAST_WORDS = 2.0


class Emitter:
    """Emits the events of one manager on one worker. From any thread, also in a signal handler.

    Args:
      listeners: Whom to tell.
      directory: The checkpoint directory.
      worker: This worker's index.
      workers: How many there are.
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
        """Emits an event of the class `kind`; what all events have need not be given."""
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
        """Waits until all events so far are heard, for so many seconds at the most."""
        if self._listeners:
            _post.flush(seconds)


class _Listening:
    """A listener whose first error is logged, and no other one."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._has_failed = False

    def hear(self, event: Event) -> None:
        """Tells the listener. Never raises."""
        try:
            self._listener(event)
        except BaseException:
            if not self._has_failed:
                self._has_failed = True
                _log.exception(
                    "The listener %r failed at %s. It is called for further events; if it fails "
                    "again, that is not logged.",
                    self._listener,
                    type(event).__name__,
                )


class _Post:
    """The queue of a process and the thread that empties it.

    The queue is one whose `put` may interrupt itself: a signal handler emits, too.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Event, tuple[_Listening, ...]] | threading.Event]
        self._queue = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.dropped = 0

    def put(self, event: Event, listeners: tuple[_Listening, ...]) -> None:
        """Puts an event into the queue, or drops it. Never waits, never raises."""
        if self._queue.qsize() >= MOST_WAITING or not self._is_running():
            self._drop()
            return
        self._queue.put((event, listeners))

    def flush(self, seconds: float) -> None:
        """Waits until what is in the queue now is heard, for so many seconds at the most."""
        if self._thread is None or threading.current_thread() is self._thread:
            return
        heard = threading.Event()
        self._queue.put(heard)
        heard.wait(seconds)

    def end(self) -> None:
        """The program ends."""
        self.flush(LAST_WORDS)
        lost = self._queue.qsize() + self.dropped
        if lost:
            _log.warning("The program ends, and listeners have not heard of %d events.", lost)

    def _is_running(self) -> bool:
        """Returns whether somebody will empty the queue; starts the thread if it must."""
        if self._thread is None and self._starting.acquire(blocking=False):
            thread = threading.Thread(target=self._run, name="distckpt events", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is about to end
                self._starting.release()
                return False
            self._thread = thread
            # Heeded at the end of multiprocessing's children, too; after `flight`, which waits for
            # the saves that are still in the air.
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

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            _log.warning(
                "Listeners are too slow: %d events wait to be heard. Those that come now are "
                "dropped. Saving is not affected.",
                self._queue.qsize(),
            )


def flush_all() -> None:
    """Waits a moment until all events are heard; for those who end the process themselves."""
    _post.flush(LAST_WORDS)


def _begin_anew() -> None:
    """A forked child has neither the thread nor the parent's events to tell."""
    global _post
    _post = _Post()


_post = _Post()
portable.in_forked_child(_begin_anew)
