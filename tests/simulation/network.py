"""The coordination port of a simulated job: messages that take time, connections that break."""

from __future__ import annotations

import math
from collections.abc import Sequence

from distckpt.coordination.base import Coordinator
from distckpt.errors import WorkerLostError

from .world import Task, World

# Seconds without a sign of life after which the engine declares a worker dead.
HEARTBEAT = 8.0
# How long messages may take, in seconds; what `latency` of a job chooses from.
LATENCIES = (0.0, 0.01, 0.4, 1.5)


class SimulatedJob:
    """What the workers of one job share. The store lives in the chief's process.

    Args:
      world: The world.
      number: Which job.
      count: The number of workers.
      slow: Whether messages take time.

    Attributes:
      tasks: The workers' processes, by index.
      deaths: Worker → from when on, and why, it counts as dead.
      cut: Worker → from when on its own calls fail, and whose fault that is.
      gone: Those who have left.
    """

    def __init__(self, world: World, number: int, count: int, *, slow: bool) -> None:
        self._world = world
        self.number = number
        self.count = count
        self.tasks: list[Task] = []
        self.deaths: dict[int, tuple[float, str]] = {}
        self.cut: dict[int, tuple[float, int]] = {}
        self.gone: set[int] = set()
        self._slow = slow
        self._values: dict[str, tuple[str, float, int]] = {}  # value, seen by others from, owner
        self._waiting: dict[Task, Sequence[str]] = {}
        self._gathered: dict[int, set[int]] = {}

    # --- What may happen to it

    def lose(self, index: int, reason: str, after: float) -> None:
        """Declares a worker dead, `after` seconds from now; without the chief, nothing works."""
        at = self._world.now + after
        if index not in self.deaths or at < self.deaths[index][0]:
            self.deaths[index] = (at, reason)
        if index == 0:
            for other in range(1, self.count):
                self.cut_off(other, after, blame=0)
        for other in self._waiting:
            self._world.wake(other, at)

    def cut_off(self, index: int, after: float, *, blame: int) -> None:
        """Makes a worker's own calls fail, `after` seconds from now."""
        at = self._world.now + after
        if index not in self.cut or at < self.cut[index][0]:
            self.cut[index] = (at, blame)
        for task in self._waiting:
            self._world.wake(task, at)

    def leave(self, index: int) -> None:
        """A worker's program has ended."""
        self.gone.add(index)

    # --- What its coordinators do

    def publish(self, caller: int, key: str, value: str) -> None:
        """See `Coordinator.publish`."""
        self._check(caller)
        if key in self._values:
            return
        delay = self._world.choices.of(*LATENCIES) if self._slow else 0.0
        at = self._world.now + delay
        self._values[key] = (value, at, caller)
        for other, keys in self._waiting.items():
            if key in keys:
                self._world.wake(other, at)

    def fetch(self, caller: int, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See `Coordinator.fetch`."""
        end = self._world.now + timeout
        while True:
            self._check(caller)
            soon = end
            for key in keys:
                found = self._values.get(key)
                if found is None:
                    continue
                if found[1] <= self._world.now or found[2] == caller:
                    return key, found[0]
                soon = min(soon, found[1])
            if self._world.now >= end:
                return None
            me = self._world.current
            self._waiting[me] = keys
            try:
                self._world.wait(min([soon, *self._changes()]))
            finally:
                del self._waiting[me]

    def lost(self) -> dict[int, str]:
        """See `Coordinator.lost`."""
        now = self._world.now
        dead = {w: reason for w, (at, reason) in self.deaths.items() if at <= now}
        return dict.fromkeys(self.gone, "it has left the job") | dead

    def forget(self, keys: Sequence[str]) -> None:
        """See `Coordinator.forget`."""
        for key in keys:
            self._values.pop(key, None)

    def gather(self, caller: int, number: int) -> None:
        """A collective: returns when all have come; has no deadline, but notices a death.

        Nobody can do anything about one who has come to save and then hangs: so would a training
        step. The time that the others wait for it is not the save's.

        Raises:
          OSError: Somebody was declared dead, or this worker was.
        """
        self._world.event("collective", number)
        here = self._gathered.setdefault(number, set())
        here.add(caller)
        if len(here) == self.count:
            for other in here - {caller}:
                self._world.wake(self.tasks[other], self._world.now)
            return
        while len(here) < self.count:
            if len(self._changes()) < len(self.deaths) + len(self.cut):
                raise OSError(f"collective {number} is broken")
            began = self._world.now
            me = self._world.current
            self._waiting[me] = ()
            try:
                self._world.wait(min([math.inf, *self._changes()]))
            finally:
                del self._waiting[me]
            if f"sim/save-{number}/rendezvous" in self._values:
                self.tasks[caller].paused += self._world.now - began

    def _changes(self) -> list[float]:
        """Returns the times to come at which somebody is declared dead or cut off."""
        times = [at for at, _ in (*self.deaths.values(), *self.cut.values())]
        return [at for at in times if at > self._world.now]

    def _check(self, caller: int) -> None:
        if caller in self.cut and self.cut[caller][0] <= self._world.now:
            blame = self.cut[caller][1]
            if blame == caller:
                raise WorkerLostError(f"worker {caller} has lost its connection")
            raise WorkerLostError(f"worker {blame} died: it cannot be reached")


class SimulatedCoordinator(Coordinator):
    """One worker's view of a `SimulatedJob`."""

    index = count = 0  # attributes, not properties: they are asked for all the time

    def __init__(self, world: World, job: SimulatedJob, index: int) -> None:
        self._world = world
        self._job = job
        self.index = index
        self.count = job.count

    def publish(self, key: str, value: str) -> None:
        """See base."""
        self._world.event("publish", key)
        self._job.publish(self.index, key, value)

    def fetch(self, keys: Sequence[str], timeout: float) -> tuple[str, str] | None:
        """See base."""
        self._world.event("fetch", *keys)
        return self._job.fetch(self.index, keys, timeout)

    def lost(self) -> dict[int, str]:
        """See base."""
        return self._job.lost()

    def forget(self, keys: Sequence[str]) -> None:
        """See base."""
        self._job.forget(keys)
