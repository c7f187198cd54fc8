"""How a manager's job ends: what `distckpt.handle_preemption` asks of its manager."""

from __future__ import annotations

from distckpt.core.delays import Patience
from distckpt.events import Preempted
from distckpt.roles import grace
from distckpt.roles.keys import Keys
from distckpt.wiring.common import Common

# How long saves take is told by so many of the newest.
_SAVES = 3


class Ending:
    """The end of one manager's job. `CheckpointManager` has the words for its users.

    Args:
      common: What it shares with the manager's other parts.
    """

    def __init__(self, common: Common) -> None:
        self._job = common.job
        self._common = common
        self._asked: list[Keys] = []  # of the questions whose keys are still there

    @property
    def longest_wait(self) -> float:
        """After how many seconds a save waits for nobody any more, however slow he is."""
        patience = self._common.patience
        return patience.limit + patience.grace

    def has_time_to_save(self, seconds_left: float | None) -> bool:
        """Returns whether a save is likely to end in time. Every worker, same point."""
        coordinator, keys = self._job.coordinator, self._job.keys("grace")
        expected = None
        if coordinator.is_chief:
            self._asked.append(keys)
            expected = self._longest_save()
        patience = Patience(self._most_to_wait(seconds_left))
        answer = grace.has_time(coordinator, keys, seconds_left, expected, patience)
        if coordinator.is_chief:
            self._forget_older_questions()
        return answer

    def told_to_end(self, seconds_left: float | None) -> None:
        """Tells the listeners that this worker is about to end. Also in a signal handler."""
        self._job.emit(Preempted, seconds_left=seconds_left)

    def leave(self) -> None:
        """Says that this worker is about to end. Every worker, same point."""
        # The keys stay: the service that has them ends with the chief, and to forget them would
        # cost seconds of the little time that is left.
        grace.leave(self._job.coordinator, self._job.keys("leave"))

    def _forget_older_questions(self) -> None:
        """Chief: all have come to the last question, so nobody waits for an answer before it."""
        coordinator = self._job.coordinator
        *older, last = self._asked
        for keys in older:
            coordinator.forget(keys.all(coordinator.count))
        self._asked = [last]

    def _longest_save(self) -> float | None:
        newest = self._common.books.active[-_SAVES:]
        return self._common.catalog().longest_save(kept.name for kept in newest)

    def _most_to_wait(self, seconds_left: float | None) -> float:
        deadline = self._common.options.save_deadline
        return deadline if seconds_left is None else min(deadline, max(1.0, seconds_left))
