"""How far each worker has got in a call: telling it, and hearing it.

What takes no longer than an interval (`core.delays.Patience.interval`) costs no message. A thread
tells, so that whoever writes is never kept waiting for the network.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from distckpt.coordination.base import Coordinator
from distckpt.core import messages
from distckpt.core.messages import Progress
from distckpt.errors import CoordinationError
from distckpt.roles import host
from distckpt.roles.keys import Keys

_log = logging.getLogger("distckpt")
# How long a call waits for a word that is just being said, in seconds.
_LAST_WORD = 1.0


class Progressing(Protocol):
    """Who is told of the progress of this worker."""

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """See `Reporter.enter`."""

    def add(self, size: int) -> None:
        """See `Reporter.add`."""


class Reporter:
    """Tells the others of this worker's progress in one call. Thread-safe.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      interval: Seconds between two words, and before the first.
      entered: Is told at once, whenever a phase begins.

    Attributes:
      at_once: Whether a word that is due is said when there is news, and not by a thread.
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
        self._now = Progress(coordinator.index, host.name(), host.pid(), "arriving")
        self._measure: Callable[[], int] | None = None
        self._said = self._now
        self._last = host.monotonic()
        self._number = 0
        self.at_once = False

    def enter(self, phase: str, total: int = 0, measure: Callable[[], int] | None = None) -> None:
        """Begins a phase of the call.

        Args:
          phase: What this worker does now: "writing".
          total: Of how many bytes, if they are counted.
          measure: Finds out how many are done; else `add` says so.
        """
        self._entered(phase)
        with self._lock:
            self._now = dataclasses.replace(self._now, phase=phase, done=0, total=total)
            self._measure = measure
        self.news()

    def add(self, size: int) -> None:
        """So many bytes more are done in this phase."""
        with self._lock:
            self._now = dataclasses.replace(self._now, done=self._now.done + size)
        self.news()

    def tick(self) -> None:
        """Tells, if there is news and the interval has passed. Never raises."""
        with self._lock:
            if host.monotonic() - self._last < self._interval:
                return
            self._last = host.monotonic()
            measure, phase = self._measure, self._now.phase
        done = _measured(measure)
        with self._lock:
            if done is not None and self._now.phase == phase:
                self._now = dataclasses.replace(self._now, done=done)
            if self._now == self._said:
                return
            self._said = self._now
            key, text = self._keys.progress(self._now.worker, self._number), self._now
            self._number += 1
        try:
            self._coordinator.publish(key, messages.to_json(text))
        except CoordinationError as error:
            _log.debug("The others are not told of the progress: %s", error)

    def news(self) -> None:
        """There may be something to tell."""
        if self.at_once:
            self.tick()


def _measured(measure: Callable[[], int] | None) -> int | None:
    try:
        return measure() if measure is not None else None
    except (
        OSError
    ):  # a file that has just been renamed; or the disk is in trouble, and says nothing
        return None


@contextlib.contextmanager
def telling(reporter: Reporter, interval: float) -> Iterator[None]:
    """Tells while the body runs, on a thread."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(interval):
            reporter.tick()

    thread = threading.Thread(target=tell, name="distckpt-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_LAST_WORD)


class Hearing:
    """What this worker has heard of the others' progress in one call. One thread hears.

    Args:
      keys: The keys of the call.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._next: dict[int, int] = {}
        self._last: dict[int, tuple[Progress, float]] = {}

    def names(self, workers: Iterable[int]) -> dict[str, int]:
        """Returns the keys of the next words of `workers`, each with the worker."""
        return {self._keys.progress(w, self._next.get(w, 0)): w for w in workers}

    def hear(self, worker: int, text: str) -> None:
        """Takes in the next word of a worker."""
        self._next[worker] = self._next.get(worker, 0) + 1
        self._last[worker] = (messages.progress_from_json(text), host.monotonic())

    def last(self, worker: int) -> tuple[Progress, float] | None:
        """Returns the last word of a worker, and for how many seconds there has been none since."""
        if worker not in self._last:
            return None
        progress, at = self._last[worker]
        return progress, host.monotonic() - at

    def bytes(self, workers: Iterable[int]) -> int:
        """Returns how many bytes `workers` have done in the phase that each was in last."""
        last = [self._last[w] for w in workers if w in self._last]
        return sum(progress.done for progress, _ in last)
