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
    """

    def __init__(self) -> None:
        self._quiet: deque[float] = deque(maxlen=_REMEMBERED)
        self._left: float | None = None  # when the last call returned
        self._was_in_flight = False
        self._stopped = 0.0
        self._slower: list[float] = []
        self._saved = False

    @property
    def seconds(self) -> float | None:
        """What the last save has cost so far; None if there was none."""
        if not self._saved:
            return None
        usual = statistics.median(self._quiet) if self._quiet else None
        over = [max(0.0, step - usual) for step in self._slower] if usual is not None else []
        return self._stopped + sum(over)

    @property
    def step(self) -> float | None:
        """How long a step usually takes; None if not known."""
        return statistics.median(self._quiet or self._slower or [0.0]) or None

    def called(self, now: float, *, in_flight: bool) -> None:
        """``save()`` is called; a save is in flight, or was until a moment ago."""
        if self._left is not None:
            step = now - self._left
            (self._slower if self._was_in_flight or in_flight else self._quiet).append(step)
        self._was_in_flight = in_flight

    def saved(self, began: float, now: float, *, in_flight: bool) -> None:
        """``save()`` has kept the program from `began` to `now`, and has left a save in flight."""
        self._stopped, self._slower, self._saved = now - began, [], True
        self._was_in_flight = in_flight

    def returned(self, now: float) -> None:
        """``save()`` returns."""
        self._left = now
