"""Waiting for other workers: with a deadline, for their death too, and with a text that names them."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core import messages, protocol
from distckpt.errors import Failure, WorkerLostError

# How long a wait lasts before it looks whether somebody died, in seconds.
SLICE = 0.5


class Keys:
    """Names of the coordination keys of one call.

    Args:
      manager: Which of the program's managers, counted alike on all workers.
      kind: "save" or "restore".
      number: Which call of that kind, counted alike on all workers.
    """

    def __init__(self, manager: str, kind: str, number: int) -> None:
        self._base = f"{manager}/{kind}-{number}"

    @property
    def opening(self) -> str:
        """The chief's opening."""
        return f"{self._base}/opening"

    @property
    def outcome(self) -> str:
        """The chief's last word."""
        return f"{self._base}/outcome"

    def answer(self, worker: int) -> str:
        """The answer of `worker`."""
        return f"{self._base}/answer-{worker}"

    def phase(self, worker: int, phase: str) -> str:
        """The sign that `worker` has reached `phase`."""
        return f"{self._base}/{phase}-{worker}"

    def step(self, number: int) -> str:
        """The chief's proposal for step `number` of a restore."""
        return f"{self._base}/step-{number}"

    def verdict(self, number: int, worker: int) -> str:
        """The verdict of `worker` on step `number` of a restore."""
        return f"{self._base}/verdict-{number}-{worker}"

    def all(self, workers: int) -> list[str]:
        """All keys of the call."""
        each = [k for w in range(workers) for k in (self.answer(w), self.phase(w, "arrived"))]
        return [self.opening, self.outcome, *each]


class Waiting:
    """The waits of one call.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      what: What to call it in texts: "save() of ckpt-12".
      deadline: Seconds from now.
    """

    def __init__(self, coordinator: Coordinator, keys: Keys, what: str, deadline: float) -> None:
        self._coordinator = coordinator
        self._keys = keys
        self._what = what
        self._seconds = deadline
        self._deadline = time.monotonic() + deadline

    def announce(self, phase: str) -> None:
        """Tells the others that this worker has reached `phase`."""
        if self._coordinator.count == 1:
            return
        key = self._keys.phase(self._coordinator.index, phase)
        try:
            self._coordinator.publish(key, str(time.time()))
        except WorkerLostError:
            return  # the wait that follows says so

    def for_answer(self, workers: Iterable[int]) -> protocol.Event:
        """Chief: waits for an answer of any of `workers`."""
        missing = sorted(workers)
        keys = [self._keys.answer(w) for w in missing]
        got = self._fetch(keys, missing)
        if isinstance(got, Failure):
            return protocol.Lost(got)
        if got is None:
            return protocol.TimedOut(self._too_late(missing))
        return protocol.Answered(messages.answer_from_json(got[1]))

    def for_opening(self) -> protocol.Event:
        """Worker: waits for the chief's opening, or its word that there will be none."""
        got = self._fetch([self._keys.opening, self._keys.outcome], [0])
        if isinstance(got, Failure):
            return protocol.Lost(got)
        if got is None:
            return protocol.TimedOut(self._too_late([0]))
        if got[0] == self._keys.outcome:
            return protocol.Told(messages.outcome_from_json(got[1]))
        # From here on the chief's deadline counts; it began before the opening was published.
        self._deadline = time.monotonic() + 1.1 * self._seconds + 5.0
        return protocol.Opened(messages.opening_from_json(got[1]))

    def for_outcome(self) -> protocol.Event:
        """Worker: waits for the chief's last word."""
        got = self._fetch([self._keys.outcome], [0])
        if isinstance(got, Failure):
            return protocol.Lost(got)
        if got is None:
            return protocol.TimedOut(self._too_late([0]))
        return protocol.Told(messages.outcome_from_json(got[1]))

    def for_verdict(
        self, number: int, workers: Iterable[int]
    ) -> messages.Verdict | protocol.Lost | protocol.TimedOut:
        """Chief: waits for the verdict of any of `workers` on step `number` of a restore."""
        missing = sorted(workers)
        got = self._fetch([self._keys.verdict(number, w) for w in missing], missing)
        if isinstance(got, Failure):
            return protocol.Lost(got)
        if got is None:
            return protocol.TimedOut(self._too_late(missing))
        return messages.verdict_from_json(got[1])

    def for_step(
        self, number: int
    ) -> messages.Proposal | messages.Outcome | protocol.Lost | protocol.TimedOut:
        """Worker: waits for step `number` of a restore, or for its outcome."""
        got = self._fetch([self._keys.step(number), self._keys.outcome], [0])
        if isinstance(got, Failure):
            return protocol.Lost(got)
        if got is None:
            return protocol.TimedOut(self._too_late([0]))
        if got[0] == self._keys.outcome:
            return messages.outcome_from_json(got[1])
        return messages.proposal_from_json(got[1])

    def _fetch(
        self, keys: Sequence[str], of: Sequence[int]
    ) -> tuple[str, str] | Failure | None:
        """Waits for any of `keys`, which the workers `of` would publish."""
        while True:
            left = self._deadline - time.monotonic()
            try:
                got = self._coordinator.fetch(keys, max(0.0, min(SLICE, left)))
                dead = {} if got else {w: r for w, r in self._coordinator.lost().items() if w in of}
                if dead:
                    got = self._coordinator.fetch(keys, 0.0)  # its last word may have arrived
            except WorkerLostError as error:
                return Failure(type(error).__name__, f"{error} ({self._what})", 0)
            if got:
                return got
            if dead:
                return self._died(dead)
            if left <= 0:
                return None

    def _died(self, dead: dict[int, str]) -> Failure:
        who = "; ".join(f"{self._coordinator.name(w)} died ({r})" for w, r in sorted(dead.items()))
        text = (
            f"During {self._what}: {who}. Restart the job: it resumes from the last committed "
            "checkpoint."
        )
        return Failure(WorkerLostError.__name__, text, min(dead))

    def _too_late(self, missing: Sequence[int]) -> Failure:
        who = "; ".join(self._describe(w) for w in missing)
        text = (
            f"{self._what} was given up after {self._seconds:g} s: {who}. Every worker must call "
            "it at the same point of the program. If they are only slow, raise the deadline in "
            "distckpt.ManagerOptions."
        )
        return Failure("DeadlineExceededError", text, missing[0])

    def _describe(self, worker: int) -> str:
        name = self._coordinator.name(worker)
        try:
            arrived = self._coordinator.fetch([self._keys.phase(worker, "arrived")], 0.0)
        except WorkerLostError:
            arrived = None
        if arrived is None:
            return f"{name} never came"
        return f"{name} came, but did not finish its part"
