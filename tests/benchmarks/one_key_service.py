"""A key-value store that can only wait for one key, like TensorFlow's, and counts what it is asked.

A call that its caller has given up stays open until the key is published; then the value is sent
once more, to nobody. That is what TensorFlow's service does, too.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from distckpt.coordination.base import Coordinator
from distckpt.coordination.crew import Crew
from distckpt.coordination.watches import Forgotten, Watches

THREADS, WAITING = 8, 4  # as in `coordination.tensorflow_service`
_FORGOTTEN = "-"


class OneKeyService:
    """The store, and what it has been asked.

    Attributes:
      calls: How many calls each worker has made, without those for messages of progress.
      given_up: How many of them were given up, by worker.
      sent: How many characters were sent to each worker, those for calls given up included.
      lost: Worker → why it is lost.
      asked: How often each worker has asked who is lost.
    """

    def __init__(self) -> None:
        self.calls: dict[int, int] = defaultdict(int)
        self.given_up: dict[int, int] = defaultdict(int)
        self.sent: dict[int, int] = defaultdict(int)
        self.asked: dict[int, int] = defaultdict(int)
        self.lost: dict[int, str] = {}
        self._lock = threading.Lock()
        self._values: dict[str, str] = {}
        self._open: dict[str, list[tuple[int, threading.Event]]] = {}

    def set(self, worker: int, key: str, value: str) -> None:
        """Publishes a key; its first value remains."""
        with self._lock:
            self.calls[worker] += "/progress-" not in key
            if key in self._values:
                return
            self._values[key] = value
            for reader, event in self._open.pop(key, ()):
                self.sent[reader] += len(value)
                event.set()

    def get(self, worker: int, key: str, seconds: float) -> str | None:
        """Waits for one key."""
        with self._lock:
            self.calls[worker] += "/progress-" not in key
            if key in self._values:
                self.sent[worker] += len(self._values[key])
                return self._values[key]
            event = threading.Event()
            self._open.setdefault(key, []).append((worker, event))
        event.wait(seconds)
        with self._lock:
            self.given_up[worker] += not event.is_set() and "/progress-" not in key
            return self._values.get(key, _FORGOTTEN) if event.is_set() else None

    def forget(self, worker: int, keys: Sequence[str]) -> None:
        """Deletes keys, and ends the calls that wait for them."""
        for key in keys:
            self.set(worker, key, _FORGOTTEN)
            with self._lock:
                self.calls[worker] += "/progress-" not in key
                self._values.pop(key, None)


class OneKeyCoordinator(Coordinator):
    """A worker of a job with such a service; it waits for keys like `TensorFlowService`.

    Attributes:
      crew: Its threads.
      waiting: The processor time of those that wait for keys.
    """

    index = count = 0

    def __init__(self, service: OneKeyService, index: int, count: int) -> None:
        self.index, self.count = index, count
        self.crew = CountingCrew()
        self.waiting = 0.0
        self._seen = threading.local()
        self._noting = threading.Lock()
        self._service = service
        self._watches = Watches(self._get, self.crew, WAITING)

    def _get(self, key: str, seconds: float) -> str | None:
        self._note()
        try:
            value = self._service.get(self.index, key, seconds)
        finally:
            self._note()
        if value == _FORGOTTEN:
            raise Forgotten
        return value

    def _note(self) -> None:
        if threading.current_thread().name.startswith("distckpt-wait"):
            now = time.thread_time()
            with self._noting:
                self.waiting += now - getattr(self._seen, "until", 0.0)
            self._seen.until = now

    def publish(self, key: str, value: str) -> None:
        """See base."""
        self._service.set(self.index, key, value)

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See base."""
        return self._watches.fetch(keys, timeout)

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """See base."""
        return self._watches.fetch_all(keys, timeout)

    def lost(self) -> dict[int, str]:
        """See base."""
        self._service.asked[self.index] += 1
        return dict(self._service.lost)

    def chief_lost(self) -> str | None:
        """See base; this is no question about the others."""
        return self._service.lost.get(0)

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        self._watches.drop(keys)
        self._service.forget(self.index, keys)

    def stop_waiting(self, keys: Sequence[str]) -> None:
        """See base."""
        self._watches.stop_waiting(keys)

    def close(self) -> None:
        """See base."""
        self._watches.close()


class CountingCrew(Crew):
    """A crew that notes how many threads it has had at a time, at the most, as `most`."""

    def __init__(self) -> None:
        self.most = 0
        super().__init__(THREADS)

    def do(self, work: Callable[[], None], most: int | None = None, name: str = "") -> bool:
        """See `Crew`."""
        done = super().do(work, most, name)
        self.most = max(self.most, self._threads)
        return done
