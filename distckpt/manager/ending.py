"""The end of a manager's job, as `distckpt.handle_preemption` needs it."""

from __future__ import annotations

from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.events import Preempted
from distckpt.manager.shared_parts import Common
from distckpt.messaging.keys import Keys
from distckpt.preemption import shutdown

# The longest of this many newest saves is the expected duration of the next one.
_SAVES = 3


class Ending:
    """The end of one manager's job; the methods are those of `CheckpointManager`.

    Args:
      common: What this part shares with the manager's other parts.
    """

    def __init__(self, common: Common) -> None:
        self._job = common.job
        self._common = common
        self._asked: list[Keys] = []  # of the questions whose keys still exist

    def has_time_to_save(self, seconds_left: float | None) -> bool:
        """Returns whether a save is likely to end in time. Every worker, same point."""
        self._common.process.check()
        coordinator, keys = self._job.coordinator, self._job.keys("grace")
        expected = None
        if coordinator.is_chief:
            self._asked.append(keys)
            newest = self._common.managed.active[-_SAVES:]
            expected = self._common.catalog().longest_save(kept.name for kept in newest)
        deadline = self._common.options.save_deadline
        if seconds_left is not None:
            deadline = min(deadline, max(1.0, seconds_left))
        patience = Patience(deadline)
        answer = shutdown.has_time(coordinator, keys, seconds_left, expected, patience)
        if coordinator.is_chief:
            self._forget_older_questions()
        return answer

    def preempted(self, seconds_left: float | None) -> None:
        """Tells the listeners that this worker is preempted."""
        self._common.process.check()
        self._job.emit(Preempted, seconds_left=seconds_left)

    def leave(self) -> None:
        """Tells the other workers that this one is about to end. Every worker, same point."""
        self._common.process.check()
        # The keys are kept: their service ends with the chief, and forgetting them would take
        # seconds of the little time that is left.
        shutdown.leave(self._job.coordinator, self._job.keys("leave"))

    def _forget_older_questions(self) -> None:
        """Chief: forgets the keys of older questions: all workers have asked the last one."""
        coordinator = self._job.coordinator
        *older, last = self._asked
        for keys in older:
            coordinator.forget(keys.all(coordinator.count))
        self._asked = [last]
