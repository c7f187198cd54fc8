"""Waits for other workers with a deadline, notices their deaths, and names them.

A deadline is extended, up to a limit, while all missing workers are only slow.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Sequence

from distckpt.coordination.base import Coordinator
from distckpt.core.protocol import actions, messages, slow_or_stuck
from distckpt.core.protocol.messages import Refusal, Report
from distckpt.core.protocol.moment import NOWHERE, Moment, Relation
from distckpt.core.protocol.slow_or_stuck import Patience
from distckpt.errors import Failure, WorkerLostError
from distckpt.messaging.keys import Keys, Names
from distckpt.messaging.missing_workers import MissingWorkers
from distckpt.messaging.progress import Hearing
from distckpt.runtime import host
from distckpt.runtime.gc_pause import paused

_log = logging.getLogger("distckpt")

# How long a wait lasts before it checks for deaths, in seconds.
SLICE = 0.5
# If more than a few answers are missing, the chief takes many at once, at longer intervals (at
# most _GATHER seconds): each look at a thousand keys takes a while.
_FEW, _MANY, _GATHER = 32, 500, 0.1
_LONGEST_PAUSE = 2.0  # seconds between two questions who is dead
# How long the coordination service may take to report a death after a broken connection.
DEATH = 15.0


class Waiting:
    """The waits of one call.

    Args:
      coordinator: The job.
      keys: The keys of the call.
      what: The call's name in messages: "save() of ckpt-12".
      patience: How long to wait.
      hearing: Records the other workers' progress; None if they publish none.
      heard: Called when a progress message arrives.
      moment: The moment of the call. A worker that refused at an earlier moment may still come.
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
        moment: Moment = NOWHERE,
    ) -> None:
        self._coordinator = coordinator
        self._keys = keys
        self._moment = moment
        self._what = what
        self._patience = patience
        self._hearing = hearing
        self._heard = heard
        self._began = host.monotonic()
        self._deadline = self._began + patience.seconds
        self._limit = self._began + patience.limit
        self._warned = False
        self._readies = Names(keys.ready)
        self._missing = MissingWorkers(coordinator, what, patience, hearing, self._readies)
        self._answers = Names(keys.answer)
        self._turns: dict[int, int] = {}  # how many answers of each worker were skipped
        self._refusal = 0  # the number of the refusal that all workers share and that is awaited
        self._verdicts: dict[int, Names] = {}  # by the number of the step
        self._early: list[Report | Refusal] = []  # answers that the chief has not been told of

    def for_ready(self, workers: Iterable[int]) -> actions.Event:
        """Chief: waits until any of `workers` has come, or has refused."""
        missing = sorted(workers)
        owners = {self._readies[w]: w for w in missing}
        while True:
            keys = [self._keys.refusal(self._refusal), *owners]
            got = self._fetch([*keys, *(self._answers[w] for w in missing)], missing)
            if isinstance(got, Failure):
                return actions.Lost(got)
            if got is None:
                return actions.TimedOut(self._too_late(missing))
            if got[0] in owners:
                return actions.Ready(owners[got[0]], got[1])
            answer = self._answer(*got)
            if answer is not None:
                return actions.Answered(answer)

    def for_answer(self, workers: Iterable[int]) -> actions.Event:
        """Chief: waits for an answer of any of `workers`."""
        while not self._early:
            missing = sorted(workers)
            keys = [self._keys.refusal(self._refusal), *(self._answers[w] for w in missing)]
            if len(missing) > _FEW:
                host.sleep(min(_GATHER, len(missing) * _GATHER / _MANY))
            got = self._wait(keys, missing, self._coordinator.fetch_all)
            if isinstance(got, Failure):
                return actions.Lost(got)
            if got is None:
                return actions.TimedOut(self._too_late(missing))
            found = [answer for one in got if (answer := self._answer(*one)) is not None]
            self._early = sorted(found, key=lambda one: isinstance(one, Report))
        return actions.Answered(self._early.pop(0))

    def for_trouble(self) -> actions.Answered | actions.Lost | None:
        """Chief, while it writes: returns a refusal or a death, without waiting.

        It does not look at the reports, of which a large job has many.
        """
        while True:
            try:
                got = self._coordinator.fetch([self._keys.refusal(self._refusal)], 0.0)
                if got is None:
                    return self._for_death_of_missing()
            except WorkerLostError as error:
                return actions.Lost(self._missing.unreachable(error))
            answer = self._answer(*got)
            if answer is not None:
                return actions.Answered(answer)

    def _for_death_of_missing(self) -> actions.Answered | actions.Lost | None:
        """Chief: returns the deaths of workers that have not answered, or a dead one's refusal."""
        others = set(range(1, self._coordinator.count))
        while dead := self._dead(sorted(others - {answer.worker for answer in self._early})):
            got = self._coordinator.fetch([self._answers[w] for w in dead], 0.0)
            if got is None:
                return actions.Lost(self._missing.died(dead))
            answer = self._answer(*got)
            if isinstance(answer, Refusal):
                return actions.Answered(answer)
            if answer is not None:
                self._early.append(answer)
        return None

    def end(self) -> None:
        """Chief: ends the wait for refusals, which few calls have. Never raises."""
        if self._coordinator.is_chief and self._coordinator.count > 1:
            self._coordinator.forget([self._keys.refusal(self._refusal)])

    def _answer(self, key: str, text: str) -> Report | Refusal | None:
        """Returns the answer in `text`; None if it refuses the call of an earlier moment.

        That worker may still come to this call; then it answers again, under the next key.
        """
        with paused():
            answer = messages.answer_from_json(text)
        if not isinstance(answer, Refusal) or answer.moment is None:
            return answer
        if answer.moment.relation(self._moment) is not Relation.EARLIER:
            return answer
        if key == self._keys.refusal(self._refusal):
            self._refusal += 1
            return None
        turn = self._turns[answer.worker] = self._turns.get(answer.worker, 0) + 1
        self._answers[answer.worker] = self._keys.answer(answer.worker, turn)
        return None

    def for_opening(self, *, rendezvous: bool) -> actions.Event:
        """Worker: waits for the chief's opening, its rendezvous, or its refusal to open."""
        first = [self._keys.rendezvous] if rendezvous else []
        # Look for the outcome first: a late worker must not begin a call that others have given up.
        keys = [self._keys.outcome, *first, self._keys.opening]
        got = self._fetch(keys, [0])
        if got is None and self._missing.come([0]):
            # The chief waits for another worker, and its outcome is due: wait for its error.
            self._deadline = host.monotonic() + self._patience.grace
            self._limit = max(self._limit, self._deadline)
            got = self._fetch(keys, [0])
        if isinstance(got, Failure):
            return actions.Lost(got)
        if got is None:
            return actions.TimedOut(self._too_late([0]))
        if got[0] == self._keys.outcome:
            return actions.Told(messages.outcome_from_json(got[1]))
        if got[0] == self._keys.rendezvous:
            return actions.Called(messages.rendezvous_from_json(got[1]))
        self._coordinator.stop_waiting(first)
        # From here on the chief's deadline counts; it began before the opening was published.
        now, grace = host.monotonic(), self._patience.grace
        self._deadline = now + self._patience.seconds + grace
        self._limit = now + self._patience.limit + grace
        return actions.Opened(messages.opening_from_json(got[1]))

    def for_rendezvous(self) -> actions.Event:
        """Any: returns the rendezvous in force, after this worker has published one.

        So a rendezvous exists, and the chief may follow it. This worker must not miss it, however
        late it comes.
        """
        self._deadline = max(self._deadline, host.monotonic() + self._patience.grace)
        self._limit = max(self._limit, self._deadline)
        got = self._of_chief([self._keys.rendezvous])
        if not isinstance(got, tuple):
            return got
        return actions.Called(messages.rendezvous_from_json(got[1]))

    def for_outcome(self) -> actions.Event:
        """Worker: waits for the chief's outcome."""
        got = self._of_chief([self._keys.outcome])
        if not isinstance(got, tuple):
            return got
        return actions.Told(messages.outcome_from_json(got[1]))

    def is_over(self) -> bool:
        """Any: returns at once whether the outcome is published, or the chief is unreachable."""
        try:
            return self._coordinator.fetch([self._keys.outcome], 0.0) is not None
        except WorkerLostError:
            return True

    def for_call(self) -> messages.Call | actions.Lost | actions.TimedOut:
        """Worker: waits for the chief's entry for this call."""
        got = self._of_chief([self._keys.call])
        if not isinstance(got, tuple):
            return got
        return messages.call_from_json(got[1])

    def for_word(self) -> str:
        """Worker: waits for the chief's answer to a question that needs only one answer.

        Raises:
          DistckptError: The answer never came.
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
          DistckptError: The decision never came.
        """
        return messages.decision_from_json(self.for_word())

    def for_verdict(
        self, number: int, workers: Iterable[int]
    ) -> messages.Verdict | actions.Lost | actions.TimedOut:
        """Chief: waits for the verdict of any of `workers` on step `number` of a restore."""
        missing = sorted(workers)
        make = functools.partial(self._keys.verdict, number)
        names = self._verdicts.setdefault(number, Names(make))
        got = self._fetch([names[w] for w in missing], missing)
        if isinstance(got, Failure):
            return actions.Lost(got)
        if got is None:
            return actions.TimedOut(self._too_late(missing))
        return messages.verdict_from_json(got[1])

    def for_step(
        self, number: int
    ) -> messages.Proposal | messages.Outcome | actions.Lost | actions.TimedOut:
        """Worker: waits for step `number` of a restore, or for its outcome."""
        # Look for the outcome first: a late worker must not begin a call that others have given up.
        got = self._of_chief([self._keys.outcome, self._keys.step(number)])
        if not isinstance(got, tuple):
            return got
        if got[0] == self._keys.outcome:
            return messages.outcome_from_json(got[1])
        return messages.proposal_from_json(got[1])

    def for_death(self) -> Failure | None:
        """Any: after a broken collective, waits a while for a report of the deaths."""
        if self._coordinator.count == 1:
            return None
        end = min(self._deadline, host.monotonic() + DEATH)
        pause = 0.2
        while True:
            dead = self._coordinator.lost()
            if dead:
                return self._missing.died(dead)
            if host.monotonic() >= end:
                return None
            host.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)  # all workers ask, and each answer is long

    def _of_chief(self, keys: Sequence[str]) -> tuple[str, str] | actions.Lost | actions.TimedOut:
        """Waits for any of the chief's `keys`."""
        got = self._fetch(keys, [0])
        if isinstance(got, Failure):
            return actions.Lost(got)
        return actions.TimedOut(self._too_late([0])) if got is None else got

    def _fetch(self, keys: Sequence[str], of: Sequence[int]) -> tuple[str, str] | Failure | None:
        """Waits for any of `keys`, published by the workers `of`; receives their progress."""
        found = self._wait(keys, of, functools.partial(Coordinator.fetch_all, self._coordinator))
        return found[0] if isinstance(found, list) else found

    def _wait(
        self,
        keys: Sequence[str],
        of: Sequence[int],
        fetch: Callable[[Sequence[str], float], list[tuple[str, str]]],
    ) -> list[tuple[str, str]] | Failure | None:
        while True:
            left = self._deadline - host.monotonic()
            try:
                words = self._words(of)
                got = fetch([*keys, *words], max(0.0, min(SLICE, left)))
                dead = {} if got else self._dead(of)
                if dead:
                    got = fetch(self._without(keys, set(of) - dead.keys()), 0.0)
            except WorkerLostError as error:
                return self._missing.unreachable(error)
            for key, text in got:
                if key in words:
                    self._hear(words[key], text)
            answers = [(key, text) for key, text in got if key not in words]
            if answers:
                return answers
            if not got and dead:
                return self._missing.died(dead)
            if not got and left <= 0 and not self._extend(of):
                return None

    def _dead(self, of: Sequence[int]) -> dict[int, str]:
        """Returns those of the workers `of` that are dead, with the reasons."""
        if list(of) == [0]:
            reason = self._coordinator.chief_lost()
            return {} if reason is None else {0: reason}
        return {w: r for w, r in self._coordinator.lost().items() if w in of}

    def _without(self, keys: Sequence[str], workers: Iterable[int]) -> Sequence[str]:
        """Returns `keys` without those of `workers`: of the dead, the last message may be there."""
        names = (self._readies, self._answers, *self._verdicts.values())
        theirs = {one[w] for w in workers for one in names}
        return [key for key in keys if key not in theirs]

    def _words(self, of: Sequence[int]) -> dict[str, int]:
        """Returns the keys of the next progress messages of `of`; {} in a short wait."""
        if self._hearing is None or host.monotonic() - self._began < self._patience.interval:
            return {}
        return self._hearing.names(of)

    def _hear(self, worker: int, text: str) -> None:
        assert self._hearing is not None
        self._hearing.hear(worker, text)
        self._heard()

    def _extend(self, of: Sequence[int]) -> bool:
        """Extends the deadline if all missing workers are only slow; warns once."""
        now = host.monotonic()
        if now >= self._limit or self._hearing is None or not all(map(self._hearing.last, of)):
            return False
        missing = self._missing.standings(of)
        if not all(s.is_slow(self._patience) for s in missing):
            return False
        # The deadline becomes the time when the first of them counts as stuck without progress.
        rest = self._patience.stall - max(s.ago for s in missing)
        self._deadline = min(self._limit, now + rest)
        if not self._warned:
            self._warned = True
            text = slow_or_stuck.explain(missing, [], self._patience)
            _log.warning(
                "%s takes longer than %g s: %s. The deadline is extended to at most %g s.",
                *(self._what, self._patience.seconds, text, self._limit - self._began),
            )
        return True

    def _too_late(self, missing: Sequence[int]) -> Failure:
        extended = host.monotonic() - self._began if self._warned else self._patience.seconds
        return self._missing.too_late(missing, extended)
