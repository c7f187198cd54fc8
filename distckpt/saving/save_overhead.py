"""Measures how much training time a save takes, while the program runs.

The cost is how long ``save()`` takes plus how much slower the steps are during an asynchronous
save. CheckFreq (Mohan et al., FAST '21) tunes its frequency by the same two values.
"""

from __future__ import annotations

import statistics
from collections import deque

_REMEMBERED = 64  # undisturbed steps


class SaveCost:
    """The cost of the last save. All times are seconds of one clock.

    The time between two calls of ``save()`` at different steps counts as a step. If the program
    calls ``save()`` only when it wants to save, no step is undisturbed, and the slow-down is
    unknown.

    Attributes:
      seconds: The cost of the last save so far; None before the first.
    """

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._quiet: deque[float] = deque(maxlen=_REMEMBERED)
        self._last: float | None = None
        self._left: float | None = None  # when the last call returned
        self._in_flight = False

    @property
    def step(self) -> float | None:
        """The mean duration of a step; None if it is unknown.

        Not the median: if every tenth step has an evaluation, ten steps take longer than ten times
        a typical one.
        """
        return statistics.fmean(self._quiet) if self._quiet else self._last

    def called(self, now: float, *, in_flight: bool, is_same_step: bool = False) -> None:
        """Notes that ``save()`` is called.

        Args:
          now: The time.
          in_flight: Whether a save is in flight.
          is_same_step: Whether the last call was at the same step.
        """
        if self._left is not None and not is_same_step:
            self._count(now - self._left, disturbed=self._in_flight or in_flight)
        self._in_flight = in_flight

    def saved(self, began: float, now: float, *, in_flight: bool) -> None:
        """Notes that ``save()`` took from `began` to `now`, and whether a save is in flight."""
        self.seconds = now - began
        self._in_flight = in_flight

    def returned(self, now: float) -> None:
        """Notes that ``save()`` returns."""
        self._left = now

    def _count(self, step: float, *, disturbed: bool) -> None:
        self._last = step
        if not disturbed:
            self._quiet.append(step)
        elif self._quiet and self.seconds is not None:
            self.seconds += max(0.0, step - statistics.median(self._quiet))
