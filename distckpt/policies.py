"""Save policies: which calls of ``save()`` save.

Policies compose with ``&`` and ``|`` and are given to a manager as `ManagerOptions.save_policy`:

    EverySteps(100) & TimeBudget(0.02)      every 100 steps, if saving takes at most 2 % of the time
    EverySeconds(600) | AtSteps([1, 10])    every ten minutes, and at two steps early on

The program then calls ``save()`` in every step; the call returns None if the policy says no. All
workers decide alike: each worker evaluates policies of steps itself; only the chief evaluates
policies of time. Without a clock such a policy answers None, "ask the chief"; ``&`` and ``|``
follow Kleene's three-valued logic.

Composable policies are an idea of tenacity and Orbax; a time budget measured while the program runs
is an idea of CheckFreq (Mohan et al., FAST '21).
"""

from __future__ import annotations

import abc
import bisect
import dataclasses
import math
from collections.abc import Iterable

from distckpt.arguments import is_number, refuse_steps, sorted_steps
from distckpt.errors import ConfigurationError


@dataclasses.dataclass(frozen=True)
class Moment:
    """What a policy knows when ``save()`` is called.

    Attributes:
      step: The step counter; without one, the number of calls of ``save()``.
      last_step: `step` when the last save began or was restored; None if there is none.
      clock: The chief's clock; None on the other workers.
    """

    step: int
    last_step: int | None
    clock: Clock | None = None

    @property
    def since(self) -> int | None:
        """`last_step`, or None if the step counter has since been set back below it."""
        return None if self.last_step is None or self.last_step > self.step else self.last_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """Times that only the chief knows.

    Attributes:
      elapsed: Seconds since the last save began, or since the manager was made.
      cost: Seconds of training that the last save cost: the time in ``save()``, and the slowdown of
        the training steps during the save. None before the first save.
    """

    elapsed: float
    cost: float | None


class SavePolicy(abc.ABC):
    """Decides whether a call of ``save()`` saves. Immutable; the same on all workers."""

    @abc.abstractmethod
    def decide(self, moment: Moment) -> bool | None:
        """Returns whether to save; None if that depends on a missing clock."""

    def rest(self, clock: Clock) -> float | None:
        """Returns in how many seconds time can allow a save; until then, only steps can.

        None: time never can.
        """
        return None

    @property
    def needs_clock(self) -> bool:
        """Whether the policy never says yes while the clock says no."""
        return False

    def __and__(self, other: SavePolicy) -> SavePolicy:
        """Returns a policy that saves when both policies do."""
        return Both(self, other)

    def __or__(self, other: SavePolicy) -> SavePolicy:
        """Returns a policy that saves when either policy does."""
        return Either(self, other)

    def __bool__(self) -> bool:
        """Raises ConfigurationError: ``a and b`` would silently mean ``b``."""
        raise ConfigurationError("Combine save policies with & and |, not with and, or and not.")


@dataclasses.dataclass(frozen=True, repr=False)
class Both(SavePolicy):
    """Saves when both `first` and `second` do; the result of ``&``."""

    first: SavePolicy
    second: SavePolicy

    def __post_init__(self) -> None:
        _check_policies("&", self.first, self.second)

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        answers = (self.first.decide(moment), self.second.decide(moment))
        if False in answers:
            return False
        return None if None in answers else True

    def rest(self, clock: Clock) -> float | None:
        """See the base class."""
        parts = [(part, part.rest(clock)) for part in (self.first, self.second)]
        rests = [rest for _, rest in parts if rest is not None]
        if not rests:
            return None
        enough = [rest for part, rest in parts if rest is not None and part.needs_clock]
        return max([min(rests), *enough])

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return self.first.needs_clock or self.second.needs_clock

    def __repr__(self) -> str:
        return f"({self.first!r} & {self.second!r})"


@dataclasses.dataclass(frozen=True, repr=False)
class Either(SavePolicy):
    """Saves when `first` or `second` does; the result of ``|``."""

    first: SavePolicy
    second: SavePolicy

    def __post_init__(self) -> None:
        _check_policies("|", self.first, self.second)

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        answers = (self.first.decide(moment), self.second.decide(moment))
        if True in answers:
            return True
        return None if None in answers else False

    def rest(self, clock: Clock) -> float | None:
        """See the base class."""
        rests = (self.first.rest(clock), self.second.rest(clock))
        return min((rest for rest in rests if rest is not None), default=None)

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return self.first.needs_clock and self.second.needs_clock

    def __repr__(self) -> str:
        return f"({self.first!r} | {self.second!r})"


@dataclasses.dataclass(frozen=True)
class EverySteps(SavePolicy):
    """Saves when a multiple of `steps` has been reached or passed since the last save.

    It does not matter whether ``save()`` is called in every step, or at which step the program was
    restarted.
    """

    steps: int

    def __post_init__(self) -> None:
        refuse_steps(self.steps)

    def decide(self, moment: Moment) -> bool:
        """See the base class."""
        return moment.step // self.steps > (moment.since or 0) // self.steps


@dataclasses.dataclass(frozen=True)
class AtSteps(SavePolicy):
    """Saves when any of `steps` has been reached or passed since the last save."""

    steps: tuple[int, ...]

    def __init__(self, steps: Iterable[int]) -> None:
        object.__setattr__(self, "steps", sorted_steps(steps))

    def decide(self, moment: Moment) -> bool:
        """See the base class."""
        before = -math.inf if moment.since is None else moment.since
        passed = bisect.bisect_right(self.steps, moment.step)
        return passed > bisect.bisect_right(self.steps, before)


class _ByClock(SavePolicy):
    """Saves when `rest` is over, whatever the step."""

    def decide(self, moment: Moment) -> bool | None:
        """See the base class."""
        return None if moment.clock is None else self.rest(moment.clock) <= 0

    @abc.abstractmethod
    def rest(self, clock: Clock) -> float:
        """See the base class."""

    @property
    def needs_clock(self) -> bool:
        """See the base class."""
        return True


@dataclasses.dataclass(frozen=True)
class EverySeconds(_ByClock):
    """Saves when the last save began at least `seconds` ago, by the chief's clock."""

    seconds: float

    def __post_init__(self) -> None:
        if not is_number(self.seconds) or not 0 < self.seconds < math.inf:
            raise ConfigurationError(
                f"EverySeconds takes a positive number of seconds, got {self.seconds!r}."
            )

    def rest(self, clock: Clock) -> float:
        """See the base class."""
        return self.seconds - clock.elapsed


@dataclasses.dataclass(frozen=True)
class TimeBudget(_ByClock):
    """Limits the cost of saving to `fraction` of the time, by the chief's clock.

    After a save that cost c seconds of training, it says no for c / `fraction` seconds: with a
    `fraction` of 0.02, for 20 s after a save that cost 0.4 s. Before the first save it says yes.
    """

    fraction: float

    def __post_init__(self) -> None:
        if not is_number(self.fraction) or not 0 < self.fraction <= 1:
            raise ConfigurationError(
                "TimeBudget takes the fraction of the time for saving, above 0 and up to 1, "
                f"e.g. 0.02 for 2 %; got {self.fraction!r}."
            )

    def rest(self, clock: Clock) -> float:
        """See the base class."""
        return (clock.cost or 0.0) / self.fraction - clock.elapsed


def _check_policies(operator: str, *policies: object) -> None:
    for policy in policies:
        if not isinstance(policy, SavePolicy):
            raise ConfigurationError(f"{operator} combines two save policies, got {policy!r}.")
