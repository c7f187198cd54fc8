"""Decides which calls of ``save()`` save, on all workers alike.

What depends on the step alone, every worker finds out for itself, without a word. Where the clock
or a save in flight has a say, only the chief knows, and all ask it (`Agreement`). With a "no" it
says for how many calls nobody need ask again, so that a policy of minutes costs a handful of
messages and not one in every step.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from distckpt.coordination.base import Coordinator
from distckpt.core import messages
from distckpt.core.cost import SaveCost
from distckpt.core.delays import Patience
from distckpt.core.messages import Decision
from distckpt.policies import Clock, Moment, SavePolicy
from distckpt.roles.keys import Keys
from distckpt.roles.waiting import Waiting

# Never more calls than this without asking: steps may become slower than they were.
_MOST_CALLS = 10_000
_NEVER = Clock(elapsed=-math.inf, cost=None)  # by which the clock says no


class Agreement:
    """Lets all workers hear the chief's decision. On the training thread.

    Args:
      coordinator: The job.
      manager: Which of the program's managers, counted alike on all workers.
      deadline: Seconds to wait for the chief.
    """

    def __init__(self, coordinator: Coordinator, manager: str, deadline: float) -> None:
        self._coordinator = coordinator
        self._manager = manager
        self._deadline = deadline
        self._asked = 0
        self._old: deque[Keys] = deque()
        self._forgotten = 0

    @property
    def asked(self) -> int:
        """How many questions there have been; the same on every worker at the same point."""
        return self._asked

    def on(self, judge: Callable[[], Decision]) -> Decision:
        """Returns what `judge` says on the chief. Every worker, at the same point.

        Raises:
          DeadlineExceededError: The chief never came.
          WorkerLostError: The chief died.
        """
        return messages.decision_from_json(self.word(lambda: messages.to_json(judge()), "save()"))

    def word(self, speak: Callable[[], str], what: str) -> str:
        """Returns what `speak` returns on the chief. Every worker, at the same point.

        Args:
          speak: Called on the chief alone.
          what: What to call the question in an error.

        Raises:
          DeadlineExceededError: The chief never came.
          WorkerLostError: The chief died.
        """
        if self._coordinator.count == 1:
            return speak()
        keys = Keys(self._manager, "pace", self._asked)
        self._asked += 1
        if not self._coordinator.is_chief:
            waiting = Waiting(self._coordinator, keys, what, Patience(self._deadline))
            return waiting.for_word()
        self._old.append(keys)
        word = speak()
        self._coordinator.publish(keys.outcome, word)
        return word

    def forget(self, asked: int) -> None:
        """Chief: drops the answers to the first `asked` questions. Any thread; takes a moment.

        They must have been heard by all: so it is when a save that was begun after them is
        committed. A chief may be many calls of ``save()`` ahead of a worker.
        """
        old = [self._old.popleft().outcome for _ in range(asked - self._forgotten)]
        self._forgotten += len(old)
        if old:
            self._coordinator.forget(old)


class Pace:
    """Which calls of ``save()`` save. On the training thread.

    Args:
      step: Reads the step counter; None if there is none: then the calls are counted.
      interval: ``checkpoint_interval`` of `tf.train.CheckpointManager`.
      policy: `ManagerOptions.save_policy`.
      last_step: ``last_checkpoint_step`` of `tf.train.CheckpointManager`.

    Attributes:
      skipped: How many calls saved nothing because a save was in flight.
    """

    def __init__(
        self,
        step: Callable[[], Any] | None,
        interval: int | None,
        policy: SavePolicy | None,
        last_step: Any,
    ) -> None:
        self._read_step = step
        self._interval = interval
        self._policy = policy
        self._calls = 0
        self._step: Any = None
        self._unasked = 0  # for how many calls the clock says no
        self._cost = SaveCost()
        self._began = time.monotonic()
        self._last: tuple[Any, float] = (last_step, self._began)  # the step and time of a save
        self._before = self._last
        self.skipped = 0

    def due(
        self, agreement: Agreement, *, check: bool, in_flight: bool, skip_when_busy: bool
    ) -> bool:
        """Returns whether this call saves. Every worker, once in each call.

        Args:
          agreement: To hear the chief.
          check: As ``check_interval`` of ``save()``: False to save at any other step than the last.
          in_flight: Whether a save is in flight; the chief's word counts.
          skip_when_busy: Whether this call saves nothing then.
        """
        self._began = time.monotonic()
        self._cost.called(self._began, in_flight=in_flight)
        self._calls += 1
        unasked, self._unasked = self._unasked > 0, max(0, self._unasked - 1)
        if self._interval is not None or self._policy is not None:
            self._step = self._read_step() if self._read_step is not None else self._calls
        if not self._interval_has_passed(check):
            return False
        answer = self._ask_policy(_NEVER if unasked else None) if check else True
        if answer is False or (answer is True and not skip_when_busy):
            return answer
        decision = agreement.on(lambda: self._judge(check, in_flight, skip_when_busy))
        self._unasked = decision.unasked
        self.skipped += decision.busy
        return decision.save

    def begun(self, *, in_flight: bool) -> None:
        """The call saves; its part on the training thread is done."""
        now = time.monotonic()
        self._cost.saved(self._began, now, in_flight=in_flight)
        self._before, self._last = self._last, (self._step, self._began)

    def failed(self) -> None:
        """The save that was begun last has failed: its step may be saved again."""
        self._last = self._before

    def restored(self) -> None:
        """The state is that of a checkpoint now."""
        if self._interval is not None or self._policy is not None:
            step = self._read_step() if self._read_step is not None else self._calls
            self._last = (step, time.monotonic())

    def returned(self) -> None:
        """The call of ``save()`` ends."""
        self._cost.returned(time.monotonic())

    def _interval_has_passed(self, check: bool) -> bool:
        """Decides by the step counter, as `tf.train.CheckpointManager.save` does."""
        last = self._last[0]
        if self._interval is None or last is None:
            return True
        if self._step == last:
            return False
        return not check or bool(self._step >= last + self._interval)

    def _ask_policy(self, clock: Clock | None) -> bool | None:
        if self._policy is None:
            return True
        last = self._last[0]
        return self._policy.decide(
            Moment(int(self._step), None if last is None else int(last), clock)
        )

    def _judge(self, check: bool, in_flight: bool, skip_when_busy: bool) -> Decision:
        """Chief: decides. What a save in flight will have cost nobody knows yet."""
        clock = Clock(elapsed=time.monotonic() - self._last[1], cost=self._cost.seconds)
        now = dataclasses.replace(clock, cost=math.inf) if in_flight else clock
        if check and not self._ask_policy(now):
            return Decision(save=False, unasked=self._calls_to_rest(clock))
        busy = in_flight and skip_when_busy
        return Decision(save=not busy, busy=busy)

    def _calls_to_rest(self, clock: Clock) -> int:
        """Returns for how many calls the clock will still say no: half of what it looks like."""
        rest = self._policy.rest(clock) if self._policy is not None else None
        step = self._cost.step
        if rest is None or rest <= 0 or not step:
            return 0
        return int(min(rest / (2 * step), _MOST_CALLS))
