"""A world of one thread: processes take turns, the clock moves when all of them wait.

Whatever a process does to the outside begins with `World.event`. There the world may strike it with
a fault, and another process may take its turn. So the run depends on the choices alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

from greenlet import getcurrent, greenlet

from .choices import Choices

TICK = 0.0005  # seconds that an event takes
TURNS = (10_000, 40, 12, 4, 1)  # how many events a process may do before others get a turn
EVENTS = 20_000  # a run with more has lost its way


class ProcessDied(BaseException):
    """Raised in a process that is dead: it does nothing any more."""


class Violation(BaseException):  # not to be caught by what it is about
    """A promise is broken."""


class Task:
    """A process, or rather its one thread.

    Attributes:
      process: The `Process` or `Program` that it is of.
      wake: When it goes on, if nothing wakes it before.
      dead: Whether it has been killed.
      paused: Seconds for which it has been stopped.
      lingered: Seconds that its own doings have taken.
      asleep_until: Until when it is stopped, and nothing wakes it.
    """

    def __init__(self, name: str, work: Callable[[], None], parent: greenlet) -> None:
        self.name = name
        self.process: Any = None
        self.wake = 0.0
        self.dead = False
        self.paused = 0.0
        self.lingered = 0.0
        self.asleep_until = 0.0
        self.thread = greenlet(work, parent)


class World:
    """What all processes share.

    Attributes:
      now: Seconds.
      current: The process whose turn it is; None between two turns.
      count: The number of events so far.
      faults: What strikes at which event: called with the task that does it.
      told: The events in words, if anybody wants to know; else None.
      visited: How often which transition of the protocol was taken.
    """

    def __init__(self, choices: Choices, *, tell: bool = False) -> None:
        self.choices = choices
        self.now = 0.0
        self.count = 0
        self.faults: dict[int, Callable[[Task], None]] = {}
        self.told: list[str] | None = [] if tell else None
        self.visited: Counter[tuple[str, str, str]] = Counter()
        self._hub = getcurrent()
        self._tasks: list[Task] = []
        self.current: Task | None = None
        self._turn = 0

    def start(self, name: str, work: Callable[[], None], after: float = 0.0) -> Task:
        """Lets a process begin, `after` seconds from now."""
        task = Task(name, work, self._hub)
        task.wake = self.now + after
        self._tasks.append(task)
        return task

    def run(self, between: Callable[[], None] = lambda: None) -> None:
        """Lets the processes take turns until none is left; calls `between` after each turn."""
        while self._tasks:
            ready = [t for t in self._tasks if t.wake <= self.now]
            if not ready:
                self._pass_time()
                continue
            task = ready[0]
            self._turn = TURNS[0]
            if len(ready) > 1:
                task = ready[self.choices.below(len(ready))]
                self._turn = self.choices.of(*TURNS)
            self.current = task
            task.thread.switch()
            self.current = None
            if task.thread.dead:
                self._tasks.remove(task)
            between()

    def close(self) -> None:
        """Ends what is left of a run that was broken off."""
        for task in self._tasks:
            task.dead = True
            self.current = task
            if task.thread:  # it has begun
                task.thread.throw(ProcessDied)
        self._tasks.clear()

    def event(self, *words: object) -> None:
        """Every process: says that it is about to do something; ends here if it is dead."""
        task = self.current
        assert task is not None
        if task.dead:
            raise ProcessDied(task.name)
        self.count += 1
        if self.count > EVENTS:
            raise Violation(f"no end after {EVENTS} events: {task.name} {words}")
        self.now += TICK
        if self.told is not None:
            self.tell(task.name, *words)
        strike = self.faults.get(self.count)
        if strike is not None:
            strike(task)
        self._turn -= 1
        if self._turn <= 0:
            self._leave(task)

    def wait(self, until: float) -> None:
        """Every process: waits, or until it is woken."""
        task = self.current
        if task.dead:
            raise ProcessDied(task.name)
        task.wake = max(until, task.asleep_until)
        self._leave(task)

    def linger(self, seconds: float) -> None:
        """Every process: is busy for a while with what it does."""
        if seconds:
            self.current.lingered += seconds
            self.wait(self.now + seconds)

    def wake(self, task: Task, at: float) -> None:
        """Lets a process that waits go on at a time, if not earlier."""
        task.wake = max(min(task.wake, at), task.asleep_until)

    def pause(self, task: Task, seconds: float) -> None:
        """Stops the current process for a while; it does not notice."""
        task.paused += seconds
        task.asleep_until = task.wake = self.now + seconds
        self._leave(task)

    def kill(self, task: Task) -> None:
        """Kills a process. If it is the current one, this raises ProcessDied."""
        task.dead = True
        task.wake = task.asleep_until = 0.0
        if task is self.current:
            raise ProcessDied(task.name)

    def tell(self, who: str, *words: object) -> None:
        """Adds to the story of this run."""
        if self.told is not None:
            self.told.append(
                f"{self.now:9.3f}  {self.count:4d}  {who:<8} " + " ".join(map(str, words))
            )

    def _leave(self, task: Task) -> None:
        self._hub.switch()
        if task.dead:
            raise ProcessDied(task.name)

    def _pass_time(self) -> None:
        wake = min(task.wake for task in self._tasks)
        if wake == math.inf:
            names = ", ".join(task.name for task in self._tasks)
            raise Violation(f"{names}: waiting for ever")
        self.now = max(self.now, wake)
