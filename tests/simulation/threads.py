"""Tasks of a world in place of the threads of a process: for saves in the background, for turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from distckpt.calls import thread_turns

from .world import Task, World

_GLANCE = 0.05  # seconds


class InterruptError(BaseException):
    """Ctrl-C, which the program catches."""


class SimulatedFlight:
    """`saving.background_save.Flight` with a task of the world in place of a thread.

    Args:
      begin: Lets work begin on a task of its own.
      world: The world.
    """

    def __init__(self, begin: Callable[[Callable[[], None]], Task], world: World) -> None:
        self._begin = begin
        self._world = world
        self._task: Task | None = None
        self._error: BaseException | None = None
        self._done = True

    @property
    def busy(self) -> bool:
        """See `BackgroundSave`."""
        return not self._done

    @property
    def pending(self) -> bool:
        """See `BackgroundSave`."""
        return self._task is not None or self._error is not None

    @property
    def has_failed(self) -> bool:
        """See `BackgroundSave`."""
        return self._done and self._error is not None

    def fail(self, error: BaseException) -> None:
        """See `BackgroundSave`."""
        self._error = error

    def start(self, work: Callable[[], object], what: str) -> bool:
        """See `BackgroundSave`."""

        def run() -> None:
            try:
                work()
            except (Exception, InterruptError) as error:
                self._error = error
            self._done = True

        self._done = False
        self._task = self._begin(run)
        return True

    def wait(self) -> None:
        """See `BackgroundSave`."""
        while not self._done:
            self._world.wait(self._world.now + 0.05)

    def finish(self) -> None:
        """See `BackgroundSave`."""
        self.wait()
        self._task = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def dismiss(self) -> None:
        """See `BackgroundSave`."""
        self.wait()
        self._error = None
        self._task = None


class SimulatedTurn(thread_turns._Turn):
    """A turn that a task of the world waits for."""

    def __init__(self, world: World, thread: int, frame: Any) -> None:
        super().__init__(thread, frame)
        self.came = SimulatedEvent(world)  # type: ignore[assignment]


class SimulatedEvent:
    """`threading.Event` for tasks of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False

    def set(self) -> None:
        """See `threading.Event`."""
        self._is_set = True

    def wait(self, seconds: float) -> bool:
        """See `threading.Event`."""
        end = self._world.now + seconds
        while not self._is_set and self._world.now < end:
            self._world.wait(min(end, self._world.now + _GLANCE))
        return self._is_set


class SimulatedThreading:
    """What `calls.thread_turns` needs of the module `threading`: each task is a thread."""

    RLock = contextlib.nullcontext  # no task leaves its turn while it holds one

    def __init__(self, world: World) -> None:
        self._world = world

    def get_ident(self) -> int:
        """See `threading.get_ident`."""
        return id(self._world.current)
