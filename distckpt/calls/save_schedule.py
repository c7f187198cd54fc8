"""Decides which calls of ``save()`` save, in the same way on all workers.

Each worker decides by itself what depends only on the step, without a message. If the answer
also depends on the clock or on a save in flight, the chief decides, and its entry in the log of
calls tells the others. An entry that says no also gives the step before which no worker needs to
ask again. So a policy of minutes costs a few messages instead of one in every step.

A worker remembers earlier calls by the chief's entries and the saves' outcomes, never by its own
count of calls, which may differ if a program has caught an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from distckpt.core.protocol.messages import Call
from distckpt.policies import Clock, Moment, SavePolicy
from distckpt.runtime import host
from distckpt.saving.save_overhead import SaveCost

# The most steps without asking: steps may become slower.
_MOST_STEPS = 10_000
_NEVER = Clock(elapsed=-math.inf, cost=None)  # with this, every policy by the clock says no


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether a call saves.

    Attributes:
      save: Whether the call saves.
      busy: Whether the call does not save because a save is in flight.
      rest_until: The clock says no before this step.
    """

    save: bool
    busy: bool = False
    rest_until: float = 0


class SaveSchedule:
    """Decides which calls of ``save()`` save. On the training thread.

    Args:
      step: Reads the step counter; None if there is none, so that calls are counted instead.
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
        self._step_before: Any = None
        self._rest_until: float = 0
        self._cost = SaveCost()
        self._began = host.monotonic()
        self._last: tuple[Any, float] = (last_step, self._began)  # the step and time of a save
        self._before = self._last
        self.skipped = 0

    @property
    def counts_calls(self) -> bool:
        """Whether calls are counted because there is no step counter."""
        return self._read_step is None

    @property
    def step(self) -> float:
        """The step of this call, for the other workers: the step counter, or the calls so far."""
        return number(self._step) if self._step is not None else self._calls

    def called(self, *, in_flight: bool) -> None:
        """Notes that a call of ``save()`` begins. Every worker, as early as the step can be read.

        Args:
          in_flight: Whether a save is in flight.
        """
        self._began = host.monotonic()
        self._calls += 1
        is_same_step = False
        if self._interval is not None or self._policy is not None:
            step = self._read_step() if self._read_step is not None else self._calls
            is_same_step = bool(step == self._step)
            if not is_same_step:
                self._step_before, self._step = self._step, step
        self._cost.called(self._began, in_flight=in_flight, is_same_step=is_same_step)

    def ask(self, *, check: bool) -> bool | None:
        """Returns whether this call saves, by the step alone; None if the chief must decide.

        Args:
          check: As ``check_interval`` of ``save()``: False to save at any step but the last saved.
        """
        if not self._interval_has_passed(check):
            return False
        if not check:
            return True
        rests = self._step is not None and bool(self._step < self._rest_until)
        return self._ask_policy(_NEVER if rests else None)

    def decide(self, *, check: bool, in_flight: bool, skip_when_busy: bool) -> Decision:
        """Chief: decides about a call for which `ask` has not said no.

        Args:
          check: See `ask`.
          in_flight: Whether a save is in flight, whose cost is not known yet.
          skip_when_busy: Whether this call saves nothing in that case.
        """
        clock = Clock(elapsed=host.monotonic() - self._last[1], cost=self._cost.seconds)
        now = dataclasses.replace(clock, cost=math.inf) if in_flight else clock
        if check and not self._ask_policy(now):
            return Decision(save=False, rest_until=self._end_of_rest(clock))
        busy = in_flight and skip_when_busy
        return Decision(save=not busy, busy=busy)

    def heed(self, call: Call) -> None:
        """Notes what the chief's entry says. Every worker, for every entry, in order."""
        if call.failure is not None:
            if call.late:
                self.failed()
            return
        self._rest_until = call.rest_until
        self.skipped += call.busy
        if call.save and call.background:
            self.settled(call)

    def count_as(self, call: Call) -> None:
        """Takes over the chief's count of calls, if there is no step counter."""
        if self._read_step is None and self._policy is not None:
            self._calls = self._step = int(call.step)

    def saved(self, call: Call, *, in_flight: bool) -> None:
        """Notes that a call has saved; its part on the training thread is done."""
        self._cost.saved(self._began, host.monotonic(), in_flight=in_flight)
        if not call.background:
            self.settled(call)

    def settled(self, call: Call) -> None:
        """Notes that the save of that entry is committed."""
        self._before, self._last = self._last, (call.step, self._began)

    def failed(self) -> None:
        """Notes that the background save has failed, so that its step may be saved again."""
        self._last = self._before

    def restored(self) -> None:
        """Notes that a checkpoint was restored."""
        self._rest_until = 0
        if self._interval is not None or self._policy is not None:
            step = self._read_step() if self._read_step is not None else self._calls
            self._last = self._before = (step, host.monotonic())

    def returned(self) -> None:
        """Notes that the call of ``save()`` ends."""
        self._cost.returned(host.monotonic())

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

    def _end_of_rest(self, clock: Clock) -> float:
        """Returns the step before which the clock will say no, using half the estimated time.

        At most as many calls as there were so far: the first steps may be shorter than later ones.
        """
        rest = self._policy.rest(clock) if self._policy is not None else None
        seconds = self._cost.step
        if rest is None or rest <= 0 or not seconds:
            return 0
        stride = self._step - self._step_before if self._step_before is not None else 1
        calls = int(min(rest / (2 * seconds), self._calls, _MOST_STEPS))
        return number(self._step + 1 + calls * max(1, stride)) if calls else 0


def number(value: Any) -> float:
    """Returns a step, which may be a NumPy number, as a number that JSON can hold."""
    plain = value.item() if hasattr(value, "item") else value
    return plain if isinstance(plain, (int, float)) else float(plain)
