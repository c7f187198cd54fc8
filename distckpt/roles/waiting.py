"""Waiting for other workers: with a deadline, for their death too, and naming them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core import messages, steps
from distckpt.errors import Failure, WorkerLostError
from distckpt.roles import host

# How long a wait lasts before it looks whether somebody died, in seconds.
SLICE = 0.5
# How long after a broken connection the engine may take to declare somebody dead.
DEATH = 15.0


class Keys:
    """Names of the coordination keys of one call.

    Args:
      manager: Which of the program's managers, counted alike on all workers.
      kind: "save", "restore" or "pace".
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

    def ready(self, worker: int) -> str:
        """The sign that `worker` has come."""
        return f"{self._base}/ready-{worker}"

    @property
    def roll(self) -> str:
        """The chief's word that all have come."""
        return f"{self._base}/roll"

    def step(self, number: int) -> str:
        """The chief's proposal for step `number` of a restore."""
        return f"{self._base}/step-{number}"

    def verdict(self, number: int, worker: int) -> str:
        """The verdict of `worker` on step `number` of a restore."""
        return f"{self._base}/verdict-{number}-{worker}"

    def all(self, workers: int) -> list[str]:
        """All keys of the call."""
        each = [k for w in range(workers) for k in (self.answer(w), self.ready(w))]
        return [self.roll, self.opening, self.outcome, *each]


class _Names(dict[int, str]):
    """Keys by worker, each made once: waiting for a thousand answers asks a thousand times for all.

    Args:
      make: Returns the key of a worker.
    """

    def __init__(self, make: Callable[[int], str]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, worker: int) -> str:
        self[worker] = key = self._make(worker)
        return key


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
        self._grace = 0.1 * deadline + 5.0  # what a worker allows the chief to say its last word
        self._deadline = host.monotonic() + deadline
        self._readies = _Names(keys.ready)
        self._answers = _Names(keys.answer)
        self._verdicts: dict[int, _Names] = {}  # by the number of the step

    def for_ready(self, workers: Iterable[int]) -> steps.Event:
        """Chief: waits until any of `workers` has come, or has said that it cannot."""
        missing = sorted(workers)
        owners = {self._readies[w]: w for w in missing}
        got = self._fetch([*owners, *(self._answers[w] for w in missing)], missing)
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late(missing))
        if got[0] in owners:
            return steps.Ready(owners[got[0]], got[1])
        return steps.Answered(messages.answer_from_json(got[1]))

    def for_answer(self, workers: Iterable[int]) -> steps.Event:
        """Chief: waits for an answer of any of `workers`."""
        missing = sorted(workers)
        got = self._fetch([self._answers[w] for w in missing], missing)
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late(missing))
        return steps.Answered(messages.answer_from_json(got[1]))

    def for_opening(self, *, roll: bool) -> steps.Event:
        """Worker: waits for the chief's opening, its roll, or its word that there will be none."""
        first = [self._keys.roll] if roll else []
        # The outcome first: who comes late must not begin what the others have given up.
        keys = [self._keys.outcome, *first, self._keys.opening]
        got = self._fetch(keys, [0])
        if got is None and self._has_come(0):
            # The chief waits for somebody else, and its verdict is due: hear whom it names.
            self._deadline = host.monotonic() + self._grace
            got = self._fetch(keys, [0])
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late([0]))
        if got[0] == self._keys.outcome:
            return steps.Told(messages.outcome_from_json(got[1]))
        if got[0] == self._keys.roll:
            return steps.Called(messages.roll_from_json(got[1]))
        # From here on the chief's deadline counts; it began before the opening was published.
        self._deadline = host.monotonic() + self._seconds + self._grace
        return steps.Opened(messages.opening_from_json(got[1]))

    def for_roll(self) -> steps.Event:
        """Any: returns the roll in force, after this worker has published one."""
        got = self._fetch([self._keys.roll], [0])
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late([0]))
        return steps.Called(messages.roll_from_json(got[1]))

    def for_outcome(self) -> steps.Event:
        """Worker: waits for the chief's last word."""
        got = self._fetch([self._keys.outcome], [0])
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late([0]))
        return steps.Told(messages.outcome_from_json(got[1]))

    def is_over(self) -> bool:
        """Any: returns at once whether the chief has said its last word, or cannot be reached."""
        try:
            return self._coordinator.fetch([self._keys.outcome], 0.0) is not None
        except WorkerLostError:
            return True

    def for_decision(self) -> messages.Decision:
        """Worker: waits for the chief's decision whether to save.

        Raises:
          DistckptError: It never came.
        """
        got = self._fetch([self._keys.outcome], [0])
        if isinstance(got, Failure):
            raise got.to_error()
        if got is None:
            raise self._too_late([0]).to_error()
        return messages.decision_from_json(got[1])

    def for_verdict(
        self, number: int, workers: Iterable[int]
    ) -> messages.Verdict | steps.Lost | steps.TimedOut:
        """Chief: waits for the verdict of any of `workers` on step `number` of a restore."""
        missing = sorted(workers)
        make = functools.partial(self._keys.verdict, number)
        names = self._verdicts.setdefault(number, _Names(make))
        got = self._fetch([names[w] for w in missing], missing)
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late(missing))
        return messages.verdict_from_json(got[1])

    def for_step(
        self, number: int
    ) -> messages.Proposal | messages.Outcome | steps.Lost | steps.TimedOut:
        """Worker: waits for step `number` of a restore, or for its outcome."""
        got = self._fetch([self._keys.step(number), self._keys.outcome], [0])
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late([0]))
        if got[0] == self._keys.outcome:
            return messages.outcome_from_json(got[1])
        return messages.proposal_from_json(got[1])

    def for_death(self) -> Failure | None:
        """Any: after a broken collective, waits a while for the word on who has died."""
        if self._coordinator.count == 1:
            return None
        end = min(self._deadline, host.monotonic() + DEATH)
        while True:
            dead = self._coordinator.lost()
            if dead:
                return self._died(dead)
            if host.monotonic() >= end:
                return None
            host.sleep(0.2)

    def _fetch(self, keys: Sequence[str], of: Sequence[int]) -> tuple[str, str] | Failure | None:
        """Waits for any of `keys`, which the workers `of` would publish."""
        while True:
            left = self._deadline - host.monotonic()
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
        if self._has_come(worker):
            return f"{name} came, but did not finish its part"
        return f"{name} never came"

    def _has_come(self, worker: int) -> bool:
        try:
            return self._coordinator.fetch([self._keys.ready(worker)], 0.0) is not None
        except WorkerLostError:
            return False
