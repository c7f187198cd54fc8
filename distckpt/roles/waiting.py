"""Waiting for other workers: with a deadline, for their death too, and naming them.

A deadline is extended, up to a limit, while everybody who is waited for is only slow.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterable, Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core import delays, messages, steps
from distckpt.core.delays import Patience, Standing
from distckpt.core.messages import Refusal, Report
from distckpt.errors import CoordinationError, Failure, WorkerLostError
from distckpt.roles import host
from distckpt.roles.keys import Keys, Names
from distckpt.roles.progress import Hearing

_log = logging.getLogger("distckpt")

# How long a wait lasts before it looks whether somebody died, in seconds.
SLICE = 0.5
# How long after a broken connection the engine may take to declare somebody dead.
DEATH = 15.0


class Waiting:
    """The waits of one call.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      what: What to call it in texts: "save() of ckpt-12".
      patience: How long to wait.
      hearing: Takes in what the others say of their progress; None if they say nothing.
      heard: Called when something of that is heard.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        keys: Keys,
        what: str,
        patience: Patience,
        *,
        hearing: Hearing | None = None,
        heard: Callable[[], None] = lambda: None,
    ) -> None:
        self._coordinator = coordinator
        self._keys = keys
        self._what = what
        self._patience = patience
        self._hearing = hearing
        self._heard = heard
        self._began = host.monotonic()
        self._deadline = self._began + patience.seconds
        self._limit = self._began + patience.limit
        self._warned = False
        self._readies = Names(keys.ready)
        self._answers = Names(keys.answer)
        self._verdicts: dict[int, Names] = {}  # by the number of the step
        self._early: list[Report | Refusal] = []  # answers that came while this worker wrote

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
        if self._early:
            return steps.Answered(self._early.pop(0))
        missing = sorted(workers)
        got = self._fetch([self._answers[w] for w in missing], missing)
        if isinstance(got, Failure):
            return steps.Lost(got)
        if got is None:
            return steps.TimedOut(self._too_late(missing))
        return steps.Answered(messages.answer_from_json(got[1]))

    def for_trouble(self) -> steps.Answered | steps.Lost | None:
        """Chief, while it writes: returns at once a refusal that has come, or a death."""
        others = range(1, self._coordinator.count)
        missing = sorted(set(others) - {answer.worker for answer in self._early})
        while missing:
            try:
                got = self._coordinator.fetch([self._answers[w] for w in missing], 0.0)
            except WorkerLostError as error:
                return steps.Lost(self._unreachable(error))
            if got is None:
                dead = {w: r for w, r in self._coordinator.lost().items() if w in missing}
                return steps.Lost(self._died(dead)) if dead else None
            answer = messages.answer_from_json(got[1])
            if isinstance(answer, Refusal):
                return steps.Answered(answer)
            self._early.append(answer)
            missing.remove(answer.worker)
        return None

    def for_opening(self, *, roll: bool) -> steps.Event:
        """Worker: waits for the chief's opening, its roll, or its word that there will be none."""
        first = [self._keys.roll] if roll else []
        # The outcome first: who comes late must not begin what the others have given up.
        keys = [self._keys.outcome, *first, self._keys.opening]
        got = self._fetch(keys, [0])
        if got is None and self._come([0]):
            # The chief waits for somebody else, and its verdict is due: hear whom it names.
            self._deadline = host.monotonic() + self._patience.grace
            self._limit = max(self._limit, self._deadline)
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
        now, grace = host.monotonic(), self._patience.grace
        self._deadline = now + self._patience.seconds + grace
        self._limit = now + self._patience.limit + grace
        return steps.Opened(messages.opening_from_json(got[1]))

    def for_roll(self) -> steps.Event:
        """Any: returns the roll in force, after this worker has published one.

        There is one, then, and the chief may go by it: it must not be missed, however late it is.
        """
        self._deadline = max(self._deadline, host.monotonic() + self._patience.grace)
        self._limit = max(self._limit, self._deadline)
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

    def for_word(self) -> str:
        """Worker: waits for the chief's answer to a question that needs no more than one.

        Raises:
          DistckptError: It never came.
        """
        got = self._fetch([self._keys.outcome], [0])
        if isinstance(got, Failure):
            raise got.to_error()
        if got is None:
            raise self._too_late([0]).to_error()
        return got[1]

    def for_decision(self) -> messages.Decision:
        """Worker: waits for the chief's decision whether to save.

        Raises:
          DistckptError: It never came.
        """
        return messages.decision_from_json(self.for_word())

    def for_verdict(
        self, number: int, workers: Iterable[int]
    ) -> messages.Verdict | steps.Lost | steps.TimedOut:
        """Chief: waits for the verdict of any of `workers` on step `number` of a restore."""
        missing = sorted(workers)
        make = functools.partial(self._keys.verdict, number)
        names = self._verdicts.setdefault(number, Names(make))
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
        """Waits for any of `keys`, which the workers `of` would publish; hears their progress."""
        while True:
            left = self._deadline - host.monotonic()
            try:
                words = self._words(of)
                got = self._coordinator.fetch([*keys, *words], max(0.0, min(SLICE, left)))
                dead = {} if got else {w: r for w, r in self._coordinator.lost().items() if w in of}
                if dead:
                    got = self._coordinator.fetch(keys, 0.0)  # its last word may have arrived
            except WorkerLostError as error:
                return self._unreachable(error)
            if got and got[0] in words:
                self._hear(words[got[0]], got[1])
            elif got:
                return got
            elif dead:
                return self._died(dead)
            elif left <= 0 and not self._extend(of):
                return None

    def _words(self, of: Sequence[int]) -> dict[str, int]:
        """Returns the keys of what `of` say next of their progress: nothing in a short wait."""
        if self._hearing is None or host.monotonic() - self._began < self._patience.interval:
            return {}
        return self._hearing.names(of)

    def _hear(self, worker: int, text: str) -> None:
        assert self._hearing is not None
        self._hearing.hear(worker, text)
        self._heard()

    def _extend(self, of: Sequence[int]) -> bool:
        """Puts the deadline off, if all who are waited for are only slow; says so, once."""
        now = host.monotonic()
        if now >= self._limit or self._hearing is None or not all(map(self._hearing.last, of)):
            return False
        missing = self._standings(of)
        if not all(s.is_slow(self._patience) for s in missing):
            return False
        # Then the first of them counts as stuck, if there is no news.
        rest = self._patience.stall - max(s.ago for s in missing)
        self._deadline = min(self._limit, now + rest)
        if not self._warned:
            self._warned = True
            text = delays.explain(missing, [], self._patience)
            _log.warning(
                "%s takes longer than %g s: %s. It will be waited for up to %g s in all.",
                self._what,
                self._patience.seconds,
                text,
                self._limit - self._began,
            )
        return True

    def _unreachable(self, error: WorkerLostError) -> Failure:
        return Failure(type(error).__name__, f"{error} ({self._what})", 0)

    def _died(self, dead: dict[int, str]) -> Failure:
        who = "; ".join(self._describe_death(w, reason) for w, reason in sorted(dead.items()))
        text = (
            f"During {self._what}: {who}. Restart the job: it resumes from the last committed "
            "checkpoint."
        )
        return Failure(WorkerLostError.__name__, text, min(dead))

    def _describe_death(self, worker: int, reason: str) -> str:
        text = f"{self._coordinator.name(worker)} died ({reason})"
        heard = self._hearing.last(worker) if self._hearing else None
        return f"{text}, last heard of {delays.what(heard[0])}" if heard else text

    def _too_late(self, missing: Sequence[int]) -> Failure:
        standings = self._standings(missing)
        others = [] if self._coordinator.index else set(range(self._coordinator.count))
        finished = [self._coordinator.name(w) for w in sorted(set(others) - set(missing))]
        who = delays.explain(standings, finished, self._patience)
        seconds = host.monotonic() - self._began if self._warned else self._patience.seconds
        text = (
            f"{self._what} was given up after {seconds:.3g} s: {who}. "
            f"{delays.advise(standings, self._patience)}"
        )
        return Failure("DeadlineExceededError", text, missing[0])

    def _standings(self, workers: Sequence[int]) -> list[Standing]:
        heard = {w: self._hearing.last(w) if self._hearing else None for w in workers}
        came = self._come([w for w in workers if heard[w] is None])
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

    def _come(self, workers: Sequence[int]) -> set[int]:
        """Returns those of `workers` that have come to this call; asks for all at once."""
        owners = {self._readies[w]: w for w in workers}
        found: set[int] = set()
        with contextlib.suppress(CoordinationError):
            while owners:
                got = self._coordinator.fetch(list(owners), 0.0)
                if got is None:
                    break
                found.add(owners.pop(got[0]))
        return found
