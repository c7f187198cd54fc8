"""Coordination inside one process: for a job of one worker, or of threads as workers.

As in TensorFlow's service, the key-value store dies with the chief.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from distckpt import errors
from distckpt.coordination import base


class InProcessJob:
    """The state that the workers of one job share.

    Args:
      count: The number of workers.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise errors.ConfigurationError(f"a job has at least one worker, got {count}")
        self.count = count
        self._changed = threading.Condition()
        self._values: dict[str, str] = {}
        self._killed: dict[int, str] = {}
        self._left: dict[int, str] = {}

    def coordinator(self, index: int) -> InProcess:
        """Returns the view of worker `index`."""
        return InProcess(self, index)

    def kill(self, index: int, reason: str) -> None:
        """Makes worker `index` count as dead, as if its process had died.

        The other workers find it in `lost()`. Its own calls, and after the chief's death all calls,
        raise WorkerLostError, and waiting calls are woken up. A second death changes nothing.
        """
        with self._changed:
            self._killed.setdefault(index, reason)
            self._changed.notify_all()

    def leave(self, index: int) -> None:
        """Makes worker `index` count as having left; its published keys stay readable."""
        with self._changed:
            self._left[index] = "it has left the job"

    def lost(self) -> dict[int, str]:
        """Returns the workers that are dead or have left, with the reasons."""
        with self._changed:
            return self._left | self._killed

    def publish(self, caller: base.Coordinator, key: str, value: str) -> None:
        """Does what `Coordinator.publish` promises, for `caller`."""
        with self._changed:
            self._check(caller)
            self._values.setdefault(key, value)
            self._changed.notify_all()

    def fetch(
        self, caller: base.Coordinator, keys: Sequence[str], timeout: float
    ) -> tuple[str, str] | None:
        """Does what `Coordinator.fetch` promises, for `caller`."""
        found = self.fetch_all(caller, keys, timeout)
        return found[0] if found else None

    def fetch_all(
        self, caller: base.Coordinator, keys: Sequence[str], timeout: float
    ) -> list[tuple[str, str]]:
        """Does what `Coordinator.fetch_all` promises, for `caller`."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                self._check(caller)
                found = [(key, self._values[key]) for key in keys if key in self._values]
                if found:
                    return found
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return []
                self._changed.wait(remaining)

    def forget(self, keys: Sequence[str]) -> None:
        """Does what `Coordinator.forget` promises."""
        with self._changed:
            for key in keys:
                self._values.pop(key, None)

    def _check(self, caller: base.Coordinator) -> None:
        for index in (0, caller.index):
            if index in self._killed:
                raise errors.WorkerLostError(f"{caller.name(index)} died: {self._killed[index]}")


class InProcess(base.Coordinator):
    """One worker of an `InProcessJob`."""

    def __init__(self, job: InProcessJob, index: int) -> None:
        if not 0 <= index < job.count:
            raise errors.ConfigurationError(f"no worker {index} in a job of {job.count}")
        self._job = job
        self._index = index

    @classmethod
    def single(cls) -> InProcess:
        """Returns the coordinator of a job of one worker, which is its own chief."""
        return InProcessJob(1).coordinator(0)

    @property
    def index(self) -> int:
        """See base."""
        return self._index

    @property
    def count(self) -> int:
        """See base."""
        return self._job.count

    def publish(self, key: str, value: str) -> None:
        """See base."""
        self._job.publish(self, key, value)

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See base."""
        return self._job.fetch(self, keys, timeout)

    def fetch_all(self, keys: Sequence[str], timeout: float) -> list[tuple[str, str]]:
        """See base."""
        return self._job.fetch_all(self, keys, timeout)

    def lost(self) -> dict[int, str]:
        """See base."""
        return self._job.lost()

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        self._job.forget(keys)

    def close(self) -> None:
        """Tells the other workers that this worker has left."""
        self._job.leave(self._index)
