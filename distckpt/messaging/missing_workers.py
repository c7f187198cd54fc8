"""Says how far the workers that others wait for have got, and why a wait for them has failed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import slow_or_stuck
from distckpt.core.protocol.slow_or_stuck import Patience, Standing
from distckpt.errors import CoordinationError, Failure, WorkerLostError
from distckpt.messaging.keys import Names
from distckpt.messaging.progress import Hearing


class MissingWorkers:
    """Describes the workers that a call waits for.

    Args:
      coordinator: The job.
      what: The call's name in messages.
      patience: How long the call waits.
      hearing: What the workers have reported of their progress; None if they report none.
      readies: The keys under which they say that they have come.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        what: str,
        patience: Patience,
        hearing: Hearing | None,
        readies: Names,
    ) -> None:
        self._coordinator = coordinator
        self._what = what
        self._patience = patience
        self._hearing = hearing
        self._readies = readies

    def unreachable(self, error: WorkerLostError) -> Failure:
        """Returns the failure of a call whose coordination service is gone."""
        return Failure(type(error).__name__, f"{error} ({self._what})", 0)

    def died(self, dead: dict[int, str]) -> Failure:
        """Returns the failure of a call because of these deaths."""
        who = "; ".join(self._describe_death(w, reason) for w, reason in sorted(dead.items()))
        text = (
            f"During {self._what}: {who}. Restart the job: it resumes from the last committed "
            "checkpoint."
        )
        return Failure(WorkerLostError.__name__, text, min(dead))

    def _describe_death(self, worker: int, reason: str) -> str:
        text = f"{self._coordinator.name(worker)} died ({reason})"
        heard = self._hearing.last(worker) if self._hearing else None
        return f"{text}, last reported: {slow_or_stuck.what(heard[0])}" if heard else text

    def too_late(self, missing: Sequence[int], seconds: float) -> Failure:
        """Returns the failure of a call in which `missing` have not come within `seconds`."""
        standings = self.standings(missing)
        others = [] if self._coordinator.index else set(range(self._coordinator.count))
        finished = [self._coordinator.name(w) for w in sorted(set(others) - set(missing))]
        who = slow_or_stuck.explain(standings, finished, self._patience)
        text = (
            f"{self._what} was given up after {seconds:.3g} s: {who}. "
            f"{slow_or_stuck.advise(standings, self._patience)}"
        )
        return Failure("DeadlineExceededError", text, missing[0])

    def standings(self, workers: Sequence[int]) -> list[Standing]:
        """Returns how far each of `workers` has got."""
        heard = {w: self._hearing.last(w) if self._hearing else None for w in workers}
        came = self.come([w for w in workers if heard[w] is None])
        found = []
        for worker in workers:
            progress, ago = heard[worker] or (None, 0.0)
            found.append(
                Standing(
                    self._coordinator.name(worker),
                    joined=self._coordinator.has_joined(worker),
                    came=progress is not None or worker in came,
                    progress=progress,
                    ago=ago,
                )
            )
        return found

    def come(self, workers: Sequence[int]) -> set[int]:
        """Returns those of `workers` that have come to this call, without waiting."""
        owners = {self._readies[w]: w for w in workers}
        found: set[int] = set()
        with contextlib.suppress(CoordinationError):
            while owners and (got := self._coordinator.fetch_all(list(owners), 0.0)):
                found |= {owners.pop(key) for key, _ in got}
        return found
