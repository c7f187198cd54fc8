"""Measures how much training time a save takes, while the program runs.

That is how long ``save()`` keeps the program, and by how much the steps during an asynchronous save
are slower than others. CheckFreq (Mohan et al., FAST '21) tunes its pace by the same two.
"""

from __future__ import annotations

import statistics
from collections import deque

_REMEMBERED = 64  # undisturbed steps


class SaveCost:
    """The cost of the last save. It is told of every call of ``save()``, in seconds of one clock.

    The time between two calls counts as a step. Where ``save()`` is called only to save, no step is
    undisturbed, and the slow-down is not known.

    Attributes:
      seconds: What the last save has cost so far; None before the first.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._quiet: deque[float] = deque(maxlen=_REMEMBERED)
        self._last: float | None = None
        self._left: float | None = None  # when the last call returned
        self._in_flight = False

    @property
    def step(self) -> float | None:
        """How long a step takes, usually; None if that is not known."""
        return statistics.median(self._quiet) if self._quiet else self._last

    def called(self, now: float, *, in_flight: bool) -> None:
        """``save()`` is called, while a save is in flight or not."""
        if self._left is not None:
            self._count(now - self._left, disturbed=self._in_flight or in_flight)
        self._in_flight = in_flight

    def saved(self, began: float, now: float, *, in_flight: bool) -> None:
        """``save()`` has kept the program from `began` to `now`, and has left a save in flight."""
        self.seconds = now - began
        self._in_flight = in_flight

    def returned(self, now: float) -> None:
        """``save()`` returns."""
        self._left = now

    def _count(self, step: float, *, disturbed: bool) -> None:
        self._last = step
        if not disturbed:
            self._quiet.append(step)
        elif self._quiet and self.seconds is not None:
            self.seconds += max(0.0, step - statistics.median(self._quiet))
