"""The progress of one save, which the workers tell each other."""

from __future__ import annotations

import contextlib

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.core.protocol.write_plan import Plan
from distckpt.messaging import progress
from distckpt.messaging.keys import Keys
from distckpt.messaging.progress import Hearing, Reporter
from distckpt.saving.phase_log import PhaseLog

# The texts by which a worker reports its actions; the writer reports more.
_PHASES: dict[type[actions.Action], str] = {
    actions.AwaitReady: "waiting for all workers to come",
    actions.ReadTogether: "reading what needs a collective",
    actions.Open: "opening the save",
    actions.AwaitOpening: "waiting for the chief to open the save",
    actions.Write: "writing",
    actions.AwaitAnswer: "waiting for the other workers",
    actions.Merge: "merging",
    actions.Commit: "committing",
    actions.AwaitOutcome: "waiting for the chief's outcome",
}


class SaveProgress:
    """One worker's progress in a save, and what it hears of the other workers' progress.

    Args:
      coordinator: The job.
      keys: The keys of this save.
      plan: Says how many bytes each worker writes.
      patience: How long to wait for the other workers.
      phase_log: Notes each phase.

    Attributes:
      reporter: Tells the other workers this one's progress.
      hearing: Receives theirs.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        keys: Keys,
        plan: Plan,
        patience: Patience,
        phase_log: PhaseLog,
    ) -> None:
        self._is_alone = coordinator.count == 1
        self._plan = plan
        self._interval = patience.interval
        self.reporter = Reporter(coordinator, keys, patience.interval, phase_log.enter)
        self.hearing = Hearing(keys)

    def telling(self) -> contextlib.AbstractContextManager[object]:
        """Tells the other workers on a thread of its own, within the context."""
        if self._is_alone:
            return contextlib.nullcontext()
        return progress.telling(self.reporter, self._interval)

    def begins(self, action: actions.Action) -> None:
        """Notes that this worker is about to perform an action."""
        phase = _PHASES.get(type(action))
        if phase is None:
            return
        if isinstance(action, actions.AwaitAnswer):
            # The chief passes on the progress of the workers that it waits for.
            shares = self._plan.bytes_per_worker
            answered = sum(shares) - sum(shares[worker] for worker in action.workers)
            self.reporter.enter(
                phase, sum(shares), lambda: answered + self.hearing.bytes(action.workers)
            )
        else:
            self.reporter.enter(phase)
