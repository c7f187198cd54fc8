"""Publishes and receives each worker's progress in a call.

A call that takes at most an interval (`slow_or_stuck.Patience.interval`) costs no message. A thread
publishes, so that writing never waits for the network. Each worker forgets its own messages when
its call ends, because no other worker waits for it any more.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import messages
from distckpt.core.protocol.messages import Progress
from distckpt.errors import DistckptError
from distckpt.messaging.keys import Keys
from distckpt.runtime import host

_log = logging.getLogger("distckpt")
# How long a call waits for a message that is just being published, in seconds.
_LAST_WORD = 1.0


class Progressing(Protocol):
    """Receives the progress of this worker."""

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """See `Reporter.enter`."""

    def add(self, size: int) -> None:
        """See `Reporter.add`."""


class Reporter:
    """Publishes this worker's progress in one call. Thread-safe.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      interval: Seconds between two messages, and before the first.
      entered: Called at once whenever a phase begins.

    Attributes:
      at_once: Whether `enter` and `add` publish messages that are due, instead of a thread.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        keys: Keys,
        interval: float,
        entered: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self._coordinator = coordinator
        self._keys = keys
        self._interval = interval
        self._entered = entered
        self._lock = threading.Lock()
        self._me = (coordinator.index, host.name(), host.pid())
        self._now = ("arriving", 0, 0)  # the phase, how much of it is done, and the total
        self._measure: Callable[[], int] | None = None
        self._said = self._now
        self._last = host.monotonic()
        self._number = 0
        self._over = False
        self.at_once = False

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """Begins a phase of the call.

        Args:
          phase: What this worker does now, e.g. "writing".
          total: The number of bytes in this phase, if they are counted.
          measure: Returns how many bytes are done; without it, `add` counts them.
        """
        self._entered(phase)
        with self._lock:
            self._now = (phase, 0, total)
            self._measure = measure
        self.news()

    def add(self, size: int) -> None:
        """Counts `size` more bytes as done in this phase."""
        with self._lock:
            phase, done, total = self._now
            self._now = (phase, done + size, total)
        self.news()

    def tick(self) -> None:
        """Publishes the progress if it has changed and the interval has passed. Never raises."""
        with self._lock:
            now = host.monotonic()
            if now - self._last < self._interval:
                return
            self._last = now
            measure, phase = self._measure, self._now[0]
        done = _measured(measure)
        with self._lock:
            if done is not None and self._now[0] == phase:
                self._now = (phase, done, self._now[2])
            if self._now == self._said or self._over:
                return
            self._said = self._now
            key = self._keys.progress(self._coordinator.index, self._number)
            progress = Progress(*self._me, *self._now)
            self._number += 1
        try:
            self._coordinator.publish(key, messages.to_json(progress))
        except DistckptError as error:
            _log.debug("The progress cannot be published: %s", error)
        if self._over:  # since the check above
            self._coordinator.forget([key])

    def end(self) -> None:
        """Ends the call on this worker: forgets its messages. Never raises."""
        with self._lock:
            self._over = True
            numbers = range(self._number + 1)  # another worker may wait for the next message
        if self._number:
            me = self._coordinator.index
            self._coordinator.forget([self._keys.progress(me, number) for number in numbers])

    def news(self) -> None:
        """Publishes at once, if no thread does."""
        if self.at_once:
            self.tick()


def _measured(measure: Callable[[], int] | None) -> int | None:
    try:
        return measure() if measure is not None else None
    except OSError:  # a file has just been renamed, or the disk has a problem: unknown
        return None


@contextlib.contextmanager
def telling(reporter: Reporter, interval: float) -> Iterator[None]:
    """Publishes progress while the body runs: on a thread, or else when it changes."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(interval):
            reporter.tick()

    thread = threading.Thread(target=tell, name="distckpt-progress", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _log.debug("Progress is published without a thread: %s", error)
        reporter.at_once = True
    try:
        yield
    finally:
        over.set()
        if not reporter.at_once:
            thread.join(_LAST_WORD)
        reporter.end()


class Hearing:
    """The other workers' progress in one call, as received. For one thread.

    Args:
      keys: The keys of the call.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._next: dict[int, int] = {}
        self._last: dict[int, tuple[Progress, float]] = {}

    def names(self, workers: Iterable[int]) -> dict[str, int]:
        """Returns the keys of the next messages of `workers`, each with its worker."""
        return {self._keys.progress(w, self._next.get(w, 0)): w for w in workers}

    def hear(self, worker: int, text: str) -> None:
        """Records the next message of a worker."""
        self._next[worker] = self._next.get(worker, 0) + 1
        self._last[worker] = (messages.progress_from_json(text), host.monotonic())

    def last(self, worker: int) -> tuple[Progress, float] | None:
        """Returns the last message of a worker, and how many seconds ago it came; or None."""
        if worker not in self._last:
            return None
        progress, at = self._last[worker]
        return progress, host.monotonic() - at

    def bytes(self, workers: Iterable[int]) -> int:
        """Returns how many bytes `workers` have done, each in its latest known phase."""
        last = [self._last[w] for w in workers if w in self._last]
        return sum(progress.done for progress, _ in last)
